"""Runs tasks: the agent that keeps a session with a manager and does what it is assigned."""
