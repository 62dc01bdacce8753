"""The commands of `swarm`. See README.md."""
