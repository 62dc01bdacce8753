"""Texts of the stock engine that clients and scripts match on (moby daemon/cluster/errors.go)."""

from __future__ import annotations

NOT_IN_SWARM_MANAGER_CALL = (
    'This node is not a swarm manager. Use "docker swarm init" or "docker swarm join" '
    "to connect this node to swarm and try again."
)
WORKER_MANAGER_CALL = (
    "This node is not a swarm manager. Worker nodes can't be used to view or modify cluster "
    "state. Please run this command on a manager node or promote the current node to a manager."
)
MANAGER_PREPARING = (
    "This node is not a swarm manager. Manager is being prepared or has trouble connecting "
    "to the cluster."
)
ALREADY_IN_SWARM = (
    'This node is already part of a swarm. Use "docker swarm leave" to leave this swarm '
    "and join another one."
)
NO_SWARM = "This node is not part of a swarm"
LOCKED = (
    "Swarm is encrypted and needs to be unlocked before it can be used. "
    'Please use "docker swarm unlock" to unlock it.'
)
LOCKED_LEAVE = (
    "Swarm is encrypted and locked. Please unlock it first or use `--force` to ignore this message."
)
CERTIFICATES_EXPIRED = (
    "Swarm certificates have expired. To replace them, leave the swarm and join again."
)
JOIN_TIMEOUT = (
    "Timeout was reached before node joined. The attempt to join the swarm will continue in "
    'the background. Use the "docker info" command to see the current swarm status of your node.'
)
WRONG_UNLOCK_KEY = "swarm could not be unlocked: invalid key provided"
MALFORMED_UNLOCK_KEY = "invalid key string"
NOT_LOCKED = "swarm is not locked"
SPEC_NAME = 'swarm spec must be named "default"'

LEAVE_MANAGER = (
    "You are attempting to leave the swarm on a node that is participating as a manager. "
)
# The trailing space is in the stock text.
LEAVE_LAST_MANAGER = (
    "Removing the last manager erases all current state of the swarm. "
    "Use `--force` to ignore this message. "
)
LEAVE_QUORUM = (
    "Removing this node leaves {left} managers out of {total}. "
    "Without a Raft quorum your swarm will be inaccessible. "
)
LEAVE_INACTIVE_MANAGER = "Doing so may lose the consensus of your cluster. "
LEAVE_RESTORE = (
    "The only way to restore a swarm that has lost consensus is to reinitialize it with "
    "`--force-new-cluster`. Use `--force` to suppress this message."
)

WORKER_NETWORK_CREATE = (
    "Cannot create a multi-host network from a worker node. "
    "Please create the network from a manager node."
)

TWO_MANAGERS = (
    "WARNING: Running Swarm in a two-manager configuration. This configuration provides\n"
    "         no fault tolerance, and poses a high risk to lose control over the cluster.\n"
    "         Refer to https://docs.docker.com/engine/swarm/admin_guide/ to configure the\n"
    "         Swarm for fault-tolerance."
)

PAGE_NOT_FOUND = "page not found"
NO_ENGINE = (
    "this node runs no container engine: it takes part in the swarm as a manager only. "
    "Start swarmd with --engine unix:///path/to/docker.sock to use containers here"
)
