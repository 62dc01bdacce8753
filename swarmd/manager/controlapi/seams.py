"""What the Control service needs from rooms it does not know, and the errors it shares."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol, TypeVar

from swarmd import api
from swarmd.base.clock import Clock
from swarmd.base.entropy import Entropy
from swarmd.base.errors import InvalidArgument, SwarmError
from swarmd.cluster.ca.rotation_start import ExternalCAs
from swarmd.cluster.store import Store, Transaction

T = TypeVar("T")


class Committer(Protocol):
    """The only way to write."""

    async def update(self, change: Callable[[Transaction], T]) -> T:
        """Run `change` once against the newest state; return after it is applied here."""
        ...


class Member(Protocol):
    """One member of the raft group, as the answering manager sees it."""

    @property
    def raft_id(self) -> int:
        """Raft's number for it."""
        ...

    @property
    def node_id(self) -> str:
        """The node behind it."""
        ...

    @property
    def addr(self) -> str:
        """Its advertised `host:port`."""
        ...

    @property
    def leader(self) -> bool:
        """True for the leader."""
        ...

    @property
    def reachable(self) -> bool:
        """True when the last send to it worked."""
        ...


class Membership(Protocol):
    """The raft member list."""

    @property
    def id(self) -> int:
        """Own raft id."""
        ...

    def members(self) -> Sequence[Member]:
        """All members, this one included."""
        ...


class Plugins(Protocol):
    """Engine plugins this manager could call."""

    def has(self, name: str, capability: str) -> bool:
        """True when a plugin `name` offers `capability`."""
        ...


class NoPlugins:
    """A manager without an engine: no plugins."""

    def has(self, name: str, capability: str) -> bool:
        """Nothing is installed."""
        return False


@dataclass(frozen=True, slots=True)
class Needs:
    """Everything the service is built from."""

    store: Store
    committer: Committer
    membership: Membership
    clock: Clock
    entropy: Entropy
    plugins: Plugins
    external_cas: ExternalCAs | None = None  # None: no external CA can be asked


class Calls:
    """Base of the parts of the service, one part per kind of object."""

    def __init__(self, needs: Needs) -> None:
        self.needs = needs


def invalid_argument() -> InvalidArgument:
    """The stock answer to an empty id, version or spec."""
    return InvalidArgument("invalid argument")


def not_found(kind: str, id: str) -> str:
    """The stock text for a missing object."""
    return f"{kind} {id} not found"


def listed(words: Sequence[str], one: str) -> tuple[str, str]:
    """(singular or plural of `one`, the words joined) as stock texts list names."""
    return (one if len(words) == 1 else one + "s"), ", ".join(words)


NAME_CONFLICT = "name conflicts with an existing object"


class NameTaken(SwarmError):
    """A name conflict in kinds where stock has no code for it (networks, volumes)."""

    def __init__(self) -> None:
        super().__init__(NAME_CONFLICT)


def is_ingress(network: api.Network) -> bool:
    """True for the routing mesh's network, in its present and its oldest form."""
    if network.spec.ingress:
        return True
    annotations = network.spec.annotations
    return annotations.name == "ingress" and "com.docker.swarm.internal" in annotations.labels


def needs_ingress(spec: api.ServiceSpec) -> bool:
    """True when a service publishes a port through the routing mesh."""
    ingress = api.PortConfig.PublishMode.INGRESS
    return any(port.publish_mode == ingress for port in spec.endpoint.ports)
