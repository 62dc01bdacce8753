"""A cluster spec, before anything is looked up (BEHAVIOUR 4.3)."""

from __future__ import annotations

from swarmd import api
from swarmd.base.errors import InvalidArgument, SwarmError
from swarmd.cluster.model.names import DEFAULT_CLUSTER
from swarmd.manager.controlapi.durations import HOUR, nanoseconds
from swarmd.manager.controlapi.seams import invalid_argument


def check_cluster_spec(spec: api.ClusterSpec) -> None:
    """Expiry, admission policy, heartbeat and name. Raises InvalidArgument."""
    try:
        if spec.ca_config.HasField("node_cert_expiry"):
            _check_expiry(nanoseconds(spec.ca_config.node_cert_expiry))
        _check_policies(spec.acceptance_policy)
        if spec.dispatcher.HasField("heartbeat_period"):
            _check_heartbeat(nanoseconds(spec.dispatcher.heartbeat_period))
    except InvalidArgument:
        raise
    except SwarmError as error:
        raise invalid_argument() from error
    if spec.annotations.name != DEFAULT_CLUSTER:
        raise InvalidArgument("modification of cluster name is not allowed")


def _check_expiry(expiry: int) -> None:
    if expiry < HOUR:
        raise InvalidArgument("minimum certificate expiry time is: 1h0m0s")


def _check_policies(policy: api.AcceptancePolicy) -> None:
    for entry in policy.policies:
        if entry.HasField("secret") and entry.secret.alg.lower() != "bcrypt":
            raise InvalidArgument(f"hashing algorithm is not supported: {entry.secret.alg}")


def _check_heartbeat(period: int) -> None:
    if period < 0:
        raise InvalidArgument("heartbeat time period cannot be a negative duration")
