"""Runs the cluster: the rooms a manager is made of, and the services it offers on port 2377."""
