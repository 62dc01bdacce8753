"""A daemon that answers the command line from a script, over a unix socket or TLS."""

from __future__ import annotations

import json
import socketserver
import ssl
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl, urlsplit

API_VERSION = "1.41"


@dataclass
class Reply:
    """What to answer. `chunks` are sent as a stream instead of a body."""

    body: Any = None
    status: int = 200
    chunks: list[str] | None = None
    headers: dict[str, str] = field(default_factory=dict)

    @classmethod
    def error(cls, status: int, message: str) -> Reply:
        """The daemon's error form."""
        return cls({"message": message}, status)


@dataclass(frozen=True)
class Request:
    """What was asked; the target has its query sorted."""

    method: str
    target: str
    body: Any = None
    agent: str = ""


class FakeDaemon:
    """Answers by (method, target) without the version prefix; several replies come in turn.

    The last reply of a list is repeated, since clients poll. A target without a query also
    answers for any query.
    """

    def __init__(self, api_version: str = API_VERSION) -> None:
        self.api_version = api_version
        self.script: dict[tuple[str, str], list[Reply]] = {}
        self.requests: list[Request] = []
        self.head_ping = True

    def on(self, method: str, target: str, *replies: Reply | Any) -> FakeDaemon:
        """Say what to answer."""
        listed = [reply if isinstance(reply, Reply) else Reply(reply) for reply in replies]
        self.script.setdefault((method, sort_query(target)), []).extend(listed)
        return self

    def answer(self, request: Request) -> Reply:
        """The reply for one request; unknown ones get 404."""
        self.requests.append(request)
        path = request.target
        prefix = f"/v{self.api_version}"
        if path == "/_ping":
            if request.method == "HEAD" and not self.head_ping:
                return Reply(status=404)
            return Reply(None, headers={"Api-Version": self.api_version} if prefix else {})
        path = path.removeprefix(prefix)
        for key in ((request.method, path), (request.method, path.partition("?")[0])):
            replies = self.script.get(key)
            if replies:
                return replies.pop(0) if len(replies) > 1 else replies[0]
        return Reply.error(404, f"not in the script: {request.method} {path}")

    def asked(self, method: str = "") -> list[str]:
        """Targets asked for, without pings, in order."""
        return [
            f"{request.method} {request.target}"
            for request in self.requests
            if request.target != "/_ping" and (not method or request.method == method)
        ]

    def bodies(self) -> list[Any]:
        """Bodies received, in order."""
        return [request.body for request in self.requests if request.body is not None]


def sort_query(target: str) -> str:
    """The target with its query in order of keys, decoded."""
    parts = urlsplit(target)
    pairs = sorted(parse_qsl(parts.query, keep_blank_values=True))
    query = "&".join(f"{key}={value}" for key, value in pairs)
    return parts.path + (f"?{query}" if query else "")


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    daemon: FakeDaemon

    def address_string(self) -> str:
        return "client"

    def log_message(self, format: str, *args: Any) -> None:
        return None

    def serve(self) -> None:
        """Answer any verb."""
        length = int(self.headers.get("Content-Length") or 0)
        data = self.rfile.read(length) if length else b""
        request = Request(
            self.command,
            sort_query(self.path),
            json.loads(data) if data else None,
            self.headers.get("User-Agent", ""),
        )
        self._send(self.daemon.answer(request))

    def _send(self, reply: Reply) -> None:
        self.send_response(reply.status)
        for name, value in reply.headers.items():
            self.send_header(name, value)
        if reply.chunks is not None:
            self.send_header("Transfer-Encoding", "chunked")
            self.end_headers()
            for chunk in reply.chunks:
                data = chunk.encode()
                self.wfile.write(b"%x\r\n%s\r\n" % (len(data), data))
                self.wfile.flush()
            self.wfile.write(b"0\r\n\r\n")
            return
        data = b""
        if isinstance(reply.body, str) and "Content-Type" in reply.headers:
            data = reply.body.encode()
        elif reply.body is not None:
            data = json.dumps(reply.body).encode()
            self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(data)


class _Threading(socketserver.ThreadingMixIn):
    daemon_threads = True

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Clients may hang up before they have read everything, or fail to shake hands."""


class _UnixServer(_Threading, socketserver.UnixStreamServer):
    pass


class _TcpServer(_Threading, socketserver.TCPServer):
    pass


@contextmanager
def serving(daemon: FakeDaemon, where: Path | ssl.SSLContext | None) -> Iterator[str]:
    """Serve on a unix socket, with TLS on loopback, or plainly on loopback; gives the URL."""
    verbs = {f"do_{verb}": _Handler.serve for verb in ("GET", "POST", "DELETE", "HEAD")}
    handler = type("Handler", (_Handler,), {"daemon": daemon, **verbs})
    server: socketserver.BaseServer
    if isinstance(where, Path):
        server = _UnixServer(str(where), handler)
        url = f"unix://{where}"
    else:
        tcp = _TcpServer(("127.0.0.1", 0), handler)
        if where is not None:
            tcp.socket = where.wrap_socket(tcp.socket, server_side=True)
        server, url = tcp, f"tcp://127.0.0.1:{tcp.server_address[1]}"
    thread = threading.Thread(target=server.serve_forever, args=(0.01,))
    thread.start()
    try:
        yield url
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
