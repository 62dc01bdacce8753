"""TLS of its own: a peer that asks for new keys again and again and reads no answer."""

from __future__ import annotations

import asyncio
import ctypes
import ctypes.util
import logging
import os
import socket
import threading

import pytest

from swarmd.rpc import link
from swarmd.rpc.http2 import wire
from tests.harness.raftnodes import eventually
from tests.wire.rpc_kit import Root, dummy_services, serving

LIBRARY = ctypes.util.find_library("ssl")
REQUIRED = os.environ.get("SWARMD_REQUIRE_ENGINE") == "1"
HELLO = wire.PREFACE + wire.frame(wire.SETTINGS, 0, 0)


class Stubborn:
    """A client by OpenSSL's own calls: Python's `ssl` cannot ask for new keys."""

    def __init__(self, port: int) -> None:
        lib = self._lib = ctypes.CDLL(LIBRARY)
        for name in ("SSL_CTX_new", "TLS_client_method", "SSL_new"):
            getattr(lib, name).restype = ctypes.c_void_p
        self._socket = socket.socket()
        self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        self._socket.settimeout(5)
        self._socket.connect(("127.0.0.1", port))
        self._socket.setblocking(True)
        context = lib.SSL_CTX_new(ctypes.c_void_p(lib.TLS_client_method()))
        self._ssl = ctypes.c_void_p(lib.SSL_new(ctypes.c_void_p(context)))
        lib.SSL_set_fd(self._ssl, self._socket.fileno())
        assert lib.SSL_connect(self._ssl) == 1
        assert lib.SSL_write(self._ssl, HELLO, len(HELLO)) == len(HELLO)

    def ask(self, stop: threading.Event) -> None:
        """Ask for new keys until told to stop, or hung up on."""
        while not stop.is_set():
            self._lib.SSL_key_update(self._ssl, 1)
            if self._lib.SSL_do_handshake(self._ssl) != 1:
                return

    def close(self) -> None:
        self._socket.close()


@pytest.mark.skipif(
    LIBRARY is None and not REQUIRED, reason="there is no OpenSSL beside Python's own"
)
async def test_answers_nobody_reads_are_not_kept_without_end(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    monkeypatch.setattr(link, "UNREAD_BYTES_MAX", 20_000)
    monkeypatch.setattr(link, "LINGER_SECONDS", 0.1)
    made = link.TlsLink.connection_made

    def with_a_small_buffer(self: link.TlsLink, transport: asyncio.BaseTransport) -> None:
        sock = transport.get_extra_info("socket")
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4096)
        made(self, transport)

    monkeypatch.setattr(link.TlsLink, "connection_made", with_a_small_buffer)
    stop = threading.Event()
    async with serving(dummy_services([]), Root().issue(role="swarm-manager")) as server:
        client = await asyncio.to_thread(Stubborn, server.port)
        asking = asyncio.ensure_future(asyncio.to_thread(client.ask, stop))
        try:
            await eventually(lambda: not len(server.registry))
        finally:
            stop.set()
            await asking
            client.close()
    assert "bytes of answers are left unread" in caplog.text
