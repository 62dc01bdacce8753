"""What this room needs from the wiring: one small protocol and the values that cross it."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field
from typing import Any, Protocol

from google.protobuf.message import Message

from swarmd import api
from swarmd.faces.engineapi.addresses import Resolved
from swarmd.faces.engineapi.errors import Refusal

__all__ = [
    "Backend",
    "Caller",
    "HostFacts",
    "InitRequest",
    "JoinRequest",
    "KnownManager",
    "LocalState",
    "MoveRequest",
    "Outlook",
    "Refusal",
    "Remote",
    "RestoreRequest",
]


class Caller(Protocol):
    """The part of `rpc.Caller` used here. Methods are named "Control/ListNodes"."""

    async def unary(self, method: str, request: Message, *, timeout: float | None = None) -> Any:
        """One request, one response; raises `SwarmError`s."""
        ...

    def server_stream(
        self, method: str, request: Message, *, timeout: float | None = None
    ) -> AsyncIterator[Any]:
        """One request, a stream of responses."""
        ...


@dataclass(frozen=True, slots=True)
class InitRequest:
    """A checked swarm init: every address is resolved, ports are filled in."""

    listen_addr: str  # "0.0.0.0:2377"
    advertise_addr: str  # "10.0.0.1:2377"
    local_addr: str  # an address of this machine, no port
    data_path_addr: str = ""
    data_path_port: int = 4789
    force_new_cluster: bool = False
    autolock: bool = False
    availability: str = ""  # "", "active", "pause", "drain"
    # None: not given. An empty tuple counts as given until the leader restarts (BEHAVIOUR 4.3).
    default_addr_pool: tuple[str, ...] | None = None
    subnet_size: int = 0  # 0: not given


@dataclass(frozen=True, slots=True)
class JoinRequest:
    """A checked swarm join."""

    listen_addr: str  # "0.0.0.0:2377"
    advertise_addr: str  # "" lets the remote manager detect it
    remote_addr: str  # "10.0.0.1:2377"
    join_token: str
    data_path_addr: str = ""
    availability: str = ""


@dataclass(frozen=True, slots=True)
class RestoreRequest:
    """A backup to go on from, and this machine's addresses as in `InitRequest`."""

    data: bytes
    listen_addr: str
    advertise_addr: str
    local_addr: str
    data_path_addr: str = ""


@dataclass(frozen=True, slots=True)
class MoveRequest:
    """A checked change of this manager's address; `addresses` are the new ones."""

    addresses: Resolved
    force: bool = False


@dataclass(frozen=True, slots=True)
class KnownManager:
    """One manager as the answering one sees it."""

    node_id: str
    hostname: str
    addr: str
    reachable: bool
    leader: bool
    own: bool


@dataclass(frozen=True, slots=True)
class Outlook:
    """The answering manager's quorum and log. `dropped`: entries that forcing would drop."""

    cluster_id: str
    node_id: str
    managers: tuple[KnownManager, ...]
    quorum: int
    reachable: int
    nodes: int
    term: int
    commit: int
    last: int
    dropped: int


@dataclass(frozen=True, slots=True)
class Remote:
    """A manager this node knows."""

    node_id: str
    addr: str


@dataclass(frozen=True, slots=True)
class LocalState:
    """What this node is in the swarm right now."""

    state: str = "inactive"  # inactive, pending, active, error, locked
    node_id: str = ""
    node_addr: str = ""  # advertised or local address, no port
    is_manager: bool = False  # a manager runs here or is about to, ready or not
    control_available: bool = False  # Control calls can be made
    error: str = ""  # the stock text for locked and expired, or a reason
    certificates_expired: bool = False
    remotes: tuple[Remote, ...] = ()


@dataclass(frozen=True, slots=True)
class HostFacts:
    """What /info, /version and the ping headers say about this machine."""

    server_version: str
    id: str = ""
    hostname: str = ""
    git_commit: str = ""
    build_time: str = ""
    os_type: str = "linux"
    architecture: str = "x86_64"  # as uname says; /version shows Go's name
    kernel_version: str = ""
    operating_system: str = ""
    os_version: str = ""
    cpus: int = 0
    memory_bytes: int = 0
    root_dir: str = ""
    debug: bool = False
    labels: tuple[str, ...] = ()
    warnings: tuple[str, ...] = field(default=())


@dataclass(frozen=True, slots=True)
class Changes:
    """What one entry of the log changed; made into a message only when somebody asks."""

    count: int
    message: Callable[[], api.WatchMessage]


class Backend(Protocol):
    """The node behind the face.

    `init`, `leave` and `unlock` raise `Refusal` or `SwarmError`; their texts reach the client as
    they are. `join` may raise `Refusal` for what this node refuses itself, and `SwarmError` for
    what the remote manager answered: those get the gRPC prefix.
    """

    async def init(self, request: InitRequest) -> str:
        """Start a new cluster (or a forced new one from kept state); this node's id."""
        ...

    async def join(self, request: JoinRequest) -> None:
        """Join; returns when certified. After 20 s raises `Refusal(503, texts.JOIN_TIMEOUT)`
        while the attempt goes on in the background."""
        ...

    async def leave(self, force: bool) -> None:
        """Stop and erase the swarm state; quorum questions were asked already."""
        ...

    async def unlock(self, key: str) -> None:
        """Start a locked node with `key` (SWMKEY-1-...); wrong key: `Unauthenticated`."""
        ...

    async def backup(self) -> bytes:
        """The state of the manager here, as a bundle (`base.archive`), not encrypted."""
        ...

    async def restore(self, request: RestoreRequest) -> str:
        """Go on alone from a backup on a node outside a swarm; this node's id."""
        ...

    def addresses(self) -> Resolved:
        """Where the manager here listens, and what the others know it by."""
        ...

    async def move(self, request: MoveRequest) -> None:
        """Have the manager here known by another address; when it raises nothing changed."""
        ...

    def outlook(self) -> Outlook:
        """What a forced new cluster would mean here; changes nothing."""
        ...

    def local(self) -> LocalState:
        """The present state; cheap, called for every request."""
        ...

    def control(self) -> Caller:
        """Calls to Control and CA, forwarded to the leader. Asked for every request: cheap.

        Raises `SwarmError` while `local()` says they are not available.
        """
        ...

    def events(self) -> AsyncIterator[Changes]:
        """Store changes of the kinds that make events, with old objects.

        Ends or raises when this node is not, or no longer, a manager.
        """
        ...
