"""Gives networks their subnets, gateways and VXLAN ids, and nodes their addresses in them.

Decides only; the packets are the engines' business. Start at `Allocator`.
"""

from swarmd.cluster.allocator.planner import Allocator

__all__ = ["Allocator"]
