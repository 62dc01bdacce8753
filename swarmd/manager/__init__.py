"""Runs the cluster: the replicated log, and the services a manager offers.

Imports the pure floor, `rpc` and below; knows nothing of faces, nodes or the command line.
"""
