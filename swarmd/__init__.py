"""swarmd: a Docker-compatible swarm-mode cluster manager."""

VERSION = "0.1.0"
