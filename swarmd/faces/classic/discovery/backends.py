"""Clients of discovery: `token://` over HTTP, `nodes://` from the URL, `file://` from a file."""

from __future__ import annotations

import asyncio
import json
import ssl
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol
from urllib.parse import quote, urlsplit

from swarmd.base.errors import (
    Aborted,
    InvalidArgument,
    SwarmError,
    Unavailable,
    Unimplemented,
)
from swarmd.faces.classic.discovery.entries import (
    create_entries,
    parse_file,
    parse_nodes,
    split_url,
)
from swarmd.faces.http.link import Head, TcpLink
from swarmd.faces.http.refusal import Refusal

NOT_SUPPORTED = "discovery service not supported"
NOT_HERE = "not implemented in this discovery service"
NO_HUB = (
    "the hosted discovery hub is gone: name a discovery service with --discovery URL, "
    "with SWARM_DISCOVERY_URL or as token://HOST:PORT/PATH/TOKEN"
)
_FILE_BYTES_MAX = 1 << 20


class Backend(Protocol):
    """One way to know the members of a cluster."""

    async def fetch(self) -> list[str]:
        """The addresses now, as "host:port". Raises `SwarmError`."""
        ...

    async def register(self, address: str) -> None:
        """Announce a member. Raises `SwarmError`; `Unimplemented` where it makes no sense."""
        ...


class Nodes:
    """A fixed list."""

    def __init__(self, text: str) -> None:
        self._entries = parse_nodes(text)

    async def fetch(self) -> list[str]:
        """The list."""
        return list(self._entries)

    async def register(self, address: str) -> None:
        """Raises `Unimplemented`: the list is in the URL."""
        raise Unimplemented(NOT_HERE)


class File:
    """A file read anew each time: one pattern a line."""

    def __init__(self, path: str) -> None:
        self._path = path

    async def fetch(self) -> list[str]:
        """What the file says now. Raises `SwarmError`."""
        return parse_file(_read(self._path))

    async def register(self, address: str) -> None:
        """Raises `Unimplemented`: the file is the operator's."""
        raise Unimplemented(NOT_HERE)


class Hub:
    """A discovery service at a base URL such as https://HOST:PORT/v1."""

    def __init__(self, base: str, context: ssl.SSLContext | None) -> None:
        """`context` is used for https. Raises `InvalidArgument`."""
        parts = urlsplit(base)
        try:
            port = parts.port or (443 if parts.scheme == "https" else 80)
        except ValueError as error:
            raise InvalidArgument(f"discovery URL {base}: {error}") from error
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise InvalidArgument(f"discovery URL {base}: want https://HOST:PORT/PATH")
        host = f"[{parts.hostname}]" if ":" in parts.hostname else parts.hostname
        secure = context if parts.scheme == "https" else None
        self._path = parts.path.rstrip("/")
        self._link = TcpLink(
            f"{host}:{port}", "the discovery service", secure, host=f"{host}:{port}"
        )

    async def create(self) -> str:
        """Make a cluster; its token. Raises `SwarmError`."""
        head, data = await self._call("POST", "/clusters")
        if head.status != 200:
            raise _refused("create a cluster", head, data)
        return data.decode("utf-8", "replace").strip()

    async def fetch(self, token: str) -> list[str]:
        """The cluster's addresses. Raises `SwarmError`."""
        head, data = await self._call("GET", f"/clusters/{quote(token)}")
        if head.status != 200:
            raise Unavailable(
                f"Failed to fetch entries, Discovery service returned {head.status} "
                "HTTP status code"
            )
        try:
            found = json.loads(data)
        except ValueError as error:
            raise SwarmError(f"Failed to decode response: {error}") from error
        if not isinstance(found, list) or not all(isinstance(item, str) for item in found):
            raise SwarmError("Failed to decode response: not a list of addresses")
        return create_entries(found)

    async def register(self, token: str, address: str, ttl_seconds: int) -> None:
        """Announce a member; unlike stock clients we look at the status. Raises `SwarmError`."""
        target = f"/clusters/{quote(token)}?ttl={ttl_seconds}"
        head, data = await self._call("POST", target, address.encode(), "application/json")
        if head.status >= 300:
            raise _refused("register", head, data)

    async def _call(
        self, method: str, target: str, body: bytes = b"", content_type: str = ""
    ) -> tuple[Head, bytes]:
        try:
            return await self._link.call(method, self._path + target, body, content_type)
        except Refusal as error:
            raise Unavailable(error.message) from error


class Token:
    """One cluster of a hub."""

    def __init__(self, hub: Hub, token: str, ttl_seconds: int) -> None:
        if not token:
            raise InvalidArgument("token is empty")
        self._hub = hub
        self._token = token
        self._ttl_seconds = ttl_seconds

    async def fetch(self) -> list[str]:
        """The cluster's addresses. Raises `SwarmError`."""
        return await self._hub.fetch(self._token)

    async def register(self, address: str) -> None:
        """Announce a member for the time to live. Raises `SwarmError`."""
        await self._hub.register(self._token, address, self._ttl_seconds)


@dataclass(frozen=True, slots=True)
class Settings:
    """What a discovery URL alone does not say."""

    hub_url: str = ""  # for token://TOKEN without a host
    ttl_seconds: int = 0
    ca_file: str = ""  # beside the system's store (which SSL_CERT_FILE replaces)


def backend_for(url: str, settings: Settings) -> Backend:
    """The client for a discovery URL. Raises `InvalidArgument`, `Unimplemented`."""
    scheme, rest = split_url(url)
    match scheme:
        case "nodes":
            return Nodes(rest)
        case "file":
            return File(rest)
        case "token":
            host, slash, token = rest.rpartition("/")
            base = f"https://{host}" if slash else settings.hub_url
            return Token(hub_for(base, settings), token, settings.ttl_seconds)
    raise Unimplemented(NOT_SUPPORTED)


def hub_for(base: str, settings: Settings) -> Hub:
    """The hub at `base`. Raises `InvalidArgument` when there is none or its CA is unusable."""
    if not base:
        raise InvalidArgument(NO_HUB)
    if base.startswith("http://"):
        return Hub(base, None)
    if "://" not in base:
        base = f"https://{base}"
    context = ssl.create_default_context()
    if settings.ca_file:
        try:
            context.load_verify_locations(Path(settings.ca_file))
        except OSError as error:
            raise InvalidArgument(f"{settings.ca_file}: {error.strerror or error}") from error
    return Hub(base, context)


async def watch(
    backend: Backend, heartbeat_seconds: float, on_error: Callable[[SwarmError], None]
) -> AsyncIterator[list[str]]:
    """Yield the members whenever they changed, asking at every heartbeat.

    What goes wrong is told to `on_error` and tried again; the last list stays in force.
    """
    known: list[str] | None = None
    while True:
        try:
            async with asyncio.timeout(heartbeat_seconds):
                found = await backend.fetch()
        except TimeoutError:
            on_error(Aborted("discovery: no answer within a heartbeat"))
        except SwarmError as error:
            on_error(error)
        else:
            if found != known:
                known = found
                yield found
        await asyncio.sleep(heartbeat_seconds)


def _read(path: str) -> str:
    # A few lines on the operator's disk, at most once a heartbeat: not worth a lane.
    try:
        with open(path, encoding="utf-8") as stream:
            return stream.read(_FILE_BYTES_MAX)
    except (OSError, UnicodeDecodeError) as error:
        raise SwarmError(f"failed to read '{path}': {error}") from error


def _refused(what: str, head: Head, data: bytes) -> SwarmError:
    text = data[:200].decode("utf-8", "replace").strip()
    return SwarmError(f"the discovery service refused to {what}: {head.status} {text}")
