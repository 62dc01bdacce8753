"""Planners that keep the cluster in order: certificates, roots, gossip keys, roles."""
