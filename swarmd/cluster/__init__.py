"""DECIDES. The pure floor: no await, no socket, no clock, no chance.

Rooms, from the ground up: `model` (what words mean), `store`, `raft` and `ca` (state and its
rules), `planning` (the contract of every control loop), then the planners themselves.
"""
