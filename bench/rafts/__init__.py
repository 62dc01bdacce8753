"""Trials of Raft implementations for Python: what they keep, and whom they trust.

Everything runs on loopback, on ports found free, in temporary folders of its own, and is ended
by the trial that started it. A trial knows one implementation; all report `Finding`s.
"""
