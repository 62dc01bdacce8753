"""Swarm v1: token discovery and one Docker API over several engines. See README.md."""
