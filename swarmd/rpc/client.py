"""Calls to a manager: `dial` it, then use the `Caller`. Managers `dial_manager` each other.

gRPC's library is loaded with the first connection that needs it only: whoever makes no such
calls, as managers that open no streams to each other, is up sooner and smaller without it.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, TypeVar

from swarmd.base.clock import Clock, SystemClock
from swarmd.base.entropy import Entropy, SystemEntropy
from swarmd.rpc.names import CA_NAME, MANAGER_NAME
from swarmd.rpc.peer import Caller, Metadata
from swarmd.rpc.tls import Credentials

if TYPE_CHECKING:
    from swarmd.rpc.reconnect import Reconnecting
    from swarmd.rpc.unarycaller import UnaryCaller
    from swarmd.rpc.wirecaller import WireCaller

__all__ = ["CA_NAME", "MANAGER_NAME", "Caller", "Credentials", "Metadata", "dial", "dial_manager"]

AnyCaller = TypeVar("AnyCaller", bound="Reconnecting[Any]")


async def dial(
    addr: str,
    credentials: Credentials,
    *,
    server_name: str = MANAGER_NAME,
    timeout: float = 5.0,
    clock: Clock | None = None,
    entropy: Entropy | None = None,
) -> WireCaller:
    """Connect to the manager at "host:port" and verify it as `server_name`.

    `server_name` is "swarm-manager", "swarm-ca" (asking for a certificate without having
    one, GetUnlockKey) or a node id. `timeout` in seconds covers connection and handshake,
    now and for every later reconnection. Raises `Disconnected`.
    """
    from swarmd.rpc.wirecaller import WireCaller

    return await _connected(WireCaller, addr, credentials, server_name, timeout, clock, entropy)


async def dial_manager(
    addr: str,
    credentials: Credentials,
    *,
    server_name: str = MANAGER_NAME,
    timeout: float = 5.0,
    clock: Clock | None = None,
    entropy: Entropy | None = None,
) -> UnaryCaller:
    """As `dial`, for a caller that makes many unary calls and hardly any streams."""
    from swarmd.rpc.unarycaller import UnaryCaller

    return await _connected(UnaryCaller, addr, credentials, server_name, timeout, clock, entropy)


async def _connected(
    make: Callable[[str, Credentials, str, float, Clock, Entropy], AnyCaller],
    addr: str,
    credentials: Credentials,
    server_name: str,
    timeout: float,
    clock: Clock | None,
    entropy: Entropy | None,
) -> AnyCaller:
    caller = make(
        addr, credentials, server_name, timeout, clock or SystemClock(), entropy or SystemEntropy()
    )
    await caller.connect()
    return caller
