"""The whole `docker.swarmkit.v1.Control` service."""

from __future__ import annotations

from swarmd.manager.controlapi.clusters import ClusterCalls
from swarmd.manager.controlapi.configs import ConfigCalls
from swarmd.manager.controlapi.extensions import ExtensionCalls
from swarmd.manager.controlapi.networks import NetworkCalls
from swarmd.manager.controlapi.nodes import NodeCalls
from swarmd.manager.controlapi.resources import ResourceCalls
from swarmd.manager.controlapi.secrets import SecretCalls
from swarmd.manager.controlapi.services import ServiceCalls
from swarmd.manager.controlapi.tasks import TaskCalls
from swarmd.manager.controlapi.volumes import VolumeCalls


class Control(
    ClusterCalls,
    NodeCalls,
    ServiceCalls,
    TaskCalls,
    NetworkCalls,
    SecretCalls,
    ConfigCalls,
    ExtensionCalls,
    ResourceCalls,
    VolumeCalls,
):
    """Reads answer from this manager's applied state, once the door let them; writes commit.

    Every method takes (request, peer) and does not look at the peer: who may call is the
    door's business.
    """

    SERVICE = "docker.swarmkit.v1.Control"
