"""One Engine API served on a unix socket, with a node behind it that the test writes down."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from ipaddress import ip_address
from pathlib import Path
from typing import Any

from google.protobuf.message import Message

from swarmd import api
from swarmd.base.aio import Channel, ChannelClosed, Tasks
from swarmd.base.clock import ManualClock
from swarmd.base.errors import NotFound, Unavailable
from swarmd.faces.engineapi import (
    APIServer,
    EngineAPI,
    HostFacts,
    InitRequest,
    JoinRequest,
    LocalState,
    Remote,
)
from swarmd.faces.engineapi.backend import Changes
from swarmd.faces.engineapi.engine import EngineLink, Head
from swarmd.faces.engineapi.interfaces import Interface

FIXTURES = Path(__file__).resolve().parents[1] / "fixtures"
NODE_ID = "38rnxpdn7t5jvo8jts0moqqes"
MANAGER = LocalState(
    state="active",
    node_id=NODE_ID,
    node_addr="10.77.30.2",
    is_manager=True,
    control_available=True,
    remotes=(Remote(NODE_ID, "10.77.30.2:2377"),),
)
WORKER = LocalState(
    state="active",
    node_id="zkziohsdlkum4ltv2sjj9ueir",
    node_addr="10.77.31.2",
    remotes=(Remote(NODE_ID, "10.77.30.2:2377"),),
)
LOCKED = LocalState(state="locked", node_addr="10.77.30.2")
PENDING = LocalState(
    state="pending", node_addr="10.77.31.2", remotes=(Remote("", "10.77.99.99:2377"),)
)
INACTIVE = LocalState()
HOST = HostFacts(server_version="28.5.2", hostname="se1", cpus=2, memory_bytes=1 << 30)


def recorded(name: str) -> Any:
    """A recording from tests/fixtures."""
    return json.loads((FIXTURES / name).read_text())


def an_interface(name: str, *addresses: str, kind: str = "device", up: bool = True) -> Interface:
    """An interface with these addresses."""
    return Interface(name, up, name == "lo", kind, tuple(ip_address(a) for a in addresses))


ONE_INTERFACE = [an_interface("lo", "127.0.0.1"), an_interface("eth0", "10.77.30.2")]


class FakeControl:
    """Answers manager calls from a table of responses, errors or functions."""

    def __init__(self) -> None:
        self.answers: dict[str, Any] = {}
        self.calls: list[tuple[str, Message]] = []

    async def unary(self, method: str, request: Message, *, timeout: float | None = None) -> Any:
        """Answer one call as written down; a Get without an answer finds nothing."""
        self.calls.append((method, request))
        answer = self.answers.get(method)
        if answer is None:
            if method.startswith("Control/Get"):
                raise NotFound("not found")
            if method.startswith("Control/List"):
                return getattr(api, method.removeprefix("Control/") + "Response")()
            raise AssertionError(f"unexpected call {method}")
        if isinstance(answer, Exception):
            raise answer
        return answer(request) if callable(answer) else answer

    async def server_stream(
        self, method: str, request: Message, *, timeout: float | None = None
    ) -> AsyncIterator[Any]:
        """The written down answers, one after the other; an error ends them."""
        self.calls.append((method, request))
        for answer in self.answers[method]:
            if isinstance(answer, Exception):
                raise answer
            yield answer

    def sent(self, method: str) -> Any:
        """The last request of that method."""
        return [request for name, request in self.calls if name == method][-1]


@dataclass
class FakeBackend:
    """A node in the state the test wants; records what it was asked for."""

    state: LocalState = MANAGER
    caller: Any = field(default_factory=FakeControl)
    asked: list[tuple[str, Any]] = field(default_factory=list)
    fails: dict[str, Exception] = field(default_factory=dict)
    messages: Channel[api.WatchMessage] = field(default_factory=lambda: Channel(100))
    becomes: LocalState | None = None

    def _do(self, name: str, value: Any) -> None:
        self.asked.append((name, value))
        if name in self.fails:
            raise self.fails[name]
        if self.becomes is not None:
            self.state = self.becomes

    async def init(self, request: InitRequest) -> str:
        """Record an init."""
        self._do("init", request)
        return NODE_ID

    async def join(self, request: JoinRequest) -> None:
        """Record a join."""
        self._do("join", request)

    async def leave(self, force: bool) -> None:
        """Record a leave."""
        self._do("leave", force)

    async def unlock(self, key: str) -> None:
        """Record an unlock."""
        self._do("unlock", key)

    def local(self) -> LocalState:
        """The state written down."""
        return self.state

    def control(self) -> Any:
        """The manager calls, while there is a manager."""
        if not self.state.control_available:
            raise Unavailable("no manager here")
        return self.caller

    async def events(self) -> AsyncIterator[Changes]:
        """Messages the test puts into `messages`."""
        while True:
            try:
                message = await self.messages.get()
            except ChannelClosed:
                return
            yield Changes(len(message.events), lambda made=message: made)


@dataclass
class Reply:
    """One HTTP reply."""

    status: int
    head: Head
    body: bytes

    @property
    def json(self) -> Any:
        """The decoded body."""
        return json.loads(self.body)

    @property
    def message(self) -> str:
        """The error message."""
        text: str = self.json["message"]
        return text


@dataclass
class Rest:
    """A running Engine API and a client of it."""

    backend: FakeBackend
    api: EngineAPI
    path: str
    clock: ManualClock

    async def call(
        self, method: str, target: str, body: Any = None, content_type: str = "application/json"
    ) -> Reply:
        """One request on its own connection; `body` is sent as JSON unless it is bytes."""
        data = b""
        if body is not None:
            data = body if isinstance(body, bytes) else json.dumps(body).encode()
        kind = content_type if body is not None else ""
        async with asyncio.timeout(20):
            head, reply = await EngineLink(self.path).call(method, target, data, kind)
        return Reply(head.status, head, reply)

    async def get(self, target: str) -> Any:
        """GET that must succeed; the decoded body."""
        reply = await self.call("GET", target)
        assert reply.status == 200, reply.body
        return reply.json


@asynccontextmanager
async def serving(
    tmp_path: Path,
    backend: FakeBackend | None = None,
    *,
    engine: str | None = None,
    interfaces: Callable[[], list[Interface]] | Sequence[Interface] = ONE_INTERFACE,
    default_advertise: str = "",
) -> AsyncIterator[Rest]:
    """Serve while the block lasts."""
    backend = backend or FakeBackend()
    clock = ManualClock()
    path = str(tmp_path / "api.sock")
    found = interfaces if callable(interfaces) else lambda: list(interfaces)
    app = EngineAPI(
        backend,
        HOST,
        clock,
        engine=engine,
        interfaces=found,
        default_advertise=default_advertise,
    )
    server = APIServer(app, unix_paths=[path], group="")
    ready = asyncio.Event()
    async with Tasks() as tasks:
        tasks.spawn(server.run(ready), "server")
        async with asyncio.timeout(10):
            await ready.wait()
        yield Rest(backend, app, path, clock)
