"""Why no node was found; texts are the reference's."""

from __future__ import annotations

from swarmd.base.errors import InvalidArgument, ResourceExhausted


class NoNode(ResourceExhausted):
    """No node can take the container now."""


class BadExpression(InvalidArgument):
    """An affinity or constraint that cannot be read."""


NO_HEALTHY_NODE = "No healthy node available in the cluster"
NO_NODE = "No nodes available in the cluster"
NO_SLOTS = "No node with enough open slots available in the cluster"
NO_RESOURCES = "no resources available to schedule container"
