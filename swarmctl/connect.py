"""Where the daemon is and how to talk to it: unix socket or TCP, plain or mutual TLS."""

from __future__ import annotations

import os
import socket
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from swarmctl import __version__
from swarmctl.errors import ApiError, CliError, ConnectError

if TYPE_CHECKING:
    import http.client
    import ssl

DEFAULT_API_VERSION = "1.50"
OLDEST_API_VERSION = "1.24"  # of a daemon that does not say its version
SYSTEM_SOCKET = "/run/swarmd/swarmd.sock"
error_bytes_max = 1 << 20
connect_seconds_max = 30.0


@dataclass(frozen=True, slots=True)
class TLSFiles:
    """Paths given on the command line or found by default; empty ones are not used."""

    ca: str = ""
    cert: str = ""
    key: str = ""
    verify: bool = True


@dataclass(frozen=True, slots=True)
class Endpoint:
    """A daemon's address; `tls` is None for plain connections."""

    url: str
    tls: TLSFiles | None = None

    @property
    def scheme(self) -> str:
        """unix or tcp."""
        return self.url.partition("://")[0]

    @property
    def rest(self) -> str:
        """Path of the socket, or host and port."""
        return self.url.partition("://")[2]


def default_socket(env: Mapping[str, str], uid: int) -> str:
    """Where a local swarmd listens: the system's for root, else the user's own."""
    runtime = env.get("XDG_RUNTIME_DIR", "")
    if uid == 0 or not runtime:
        return SYSTEM_SOCKET
    return os.path.join(runtime, "swarmd", "swarmd.sock")


def choose_host(hosts: list[str], env: Mapping[str, str], uid: int, tls: bool) -> str:
    """The daemon to talk to: flag, SWARMD_HOST, DOCKER_HOST, else the default socket."""
    if len(hosts) > 1:
        raise CliError("Specify only one -H")
    text = hosts[0] if hosts else env.get("SWARMD_HOST") or env.get("DOCKER_HOST") or ""
    text = text.strip()
    if not text:
        return "unix://" + default_socket(env, uid)
    scheme, mark, rest = text.partition("://")
    if not mark:
        scheme, rest = "tcp", text
    if scheme == "unix":
        return "unix://" + (rest or default_socket(env, uid))
    if scheme != "tcp":
        raise CliError(f"invalid bind address format: {text}")
    return "tcp://" + _with_port(rest, "2376" if tls else "2375", text)


def _with_port(rest: str, port: str, text: str) -> str:
    rest = rest.rstrip("/")
    host, colon, given = rest.rpartition(":")
    if not colon or rest.endswith("]"):
        host, given = rest, port
    if not (given or port).isdigit() or (":" in host and not host.startswith("[")):
        raise CliError(f"invalid bind address format: {text}")
    return f"{host or '127.0.0.1'}:{given or port}"


class Response:
    """A reply whose body can be read at once or as it comes."""

    def __init__(self, raw: http.client.HTTPResponse) -> None:
        self._raw = raw
        self.status = raw.status

    def text(self) -> str:
        """The whole body."""
        return self._raw.read().decode("utf-8", "replace")

    def content(self) -> bytes:
        """The whole body as it is. Raises CliError when it was cut off on the way."""
        import http.client

        try:
            return self._raw.read()
        except (http.client.HTTPException, OSError) as error:
            raise CliError(f"error during connect: {error}") from None

    def json(self) -> Any:
        """The body decoded; None when empty."""
        import json

        text = self.text()
        try:
            return json.loads(text) if text.strip() else None
        except ValueError as error:
            raise CliError(f"Error reading remote info: {error}") from None

    def objects(self) -> Iterator[Any]:
        """JSON objects of a stream, one after the other, until it ends."""
        import codecs
        import json

        decoder, pending = json.JSONDecoder(), ""
        chars = codecs.getincrementaldecoder("utf-8")("replace")
        while chunk := self._raw.read1(65536):
            pending += chars.decode(chunk)
            while pending := pending.lstrip():
                try:
                    found, end = decoder.raw_decode(pending)
                except ValueError:
                    break
                pending = pending[end:]
                yield found


class Client:
    """Calls of the Engine API over one connection; agrees on a version first."""

    def __init__(self, endpoint: Endpoint, api_version: str = "") -> None:
        self._endpoint = endpoint
        self._connection: http.client.HTTPConnection | None = None
        self._last: Response | None = None
        self._pinned = api_version
        self._version = api_version

    @property
    def api_version(self) -> str:
        """The version spoken: the daemon's if it is older than ours, unless pinned."""
        if not self._version:
            self._version = self._negotiate()
        return self._version

    def get(self, path: str, query: Mapping[str, str] | None = None) -> Response:
        """GET; raises ApiError for an error status."""
        return self.call("GET", path, query)

    def post(self, path: str, body: Any = None, query: Mapping[str, str] | None = None) -> Response:
        """POST with a JSON body, or none."""
        return self.call("POST", path, query, body)

    def upload(self, path: str, data: bytes, query: Mapping[str, str] | None = None) -> Response:
        """POST a tar file."""
        return self.call("POST", path, query, data)

    def delete(self, path: str, query: Mapping[str, str] | None = None) -> Response:
        """DELETE."""
        return self.call("DELETE", path, query)

    def call(
        self, method: str, path: str, query: Mapping[str, str] | None = None, body: Any = None
    ) -> Response:
        """One call below `/v<version>`. Raises ApiError, ConnectError."""
        from urllib.parse import urlencode

        target = f"/v{self.api_version}{path}"
        if query:
            target += "?" + urlencode(sorted(query.items()))
        return self._checked(self._send(method, target, body), target)

    def close(self) -> None:
        """Hang up."""
        if self._connection is not None:
            self._connection.close()
            self._connection = None

    def _negotiate(self) -> str:
        reply = self._send("HEAD", "/_ping")
        if reply.status != 200:
            reply.text()
            reply = self._send("GET", "/_ping")
        theirs = reply._raw.getheader("Api-Version") or OLDEST_API_VERSION
        reply.text()
        try:
            older = _numbers(theirs) < _numbers(DEFAULT_API_VERSION)
        except ValueError:
            return OLDEST_API_VERSION
        return theirs if older else DEFAULT_API_VERSION

    def _send(self, method: str, target: str, body: Any = None) -> Response:
        import http.client
        import json

        headers = {"User-Agent": f"swarmctl/{__version__} (linux)"}
        data = None
        if isinstance(body, bytes):
            data, headers["Content-Type"] = body, "application/x-tar"
        elif body is not None:
            data = json.dumps(body, ensure_ascii=False).encode()
            headers["Content-Type"] = "application/json"
        if self._last is not None:
            self._last.text()  # the connection is free only when its last reply is read
            self._last = None
        for fresh in (self._connection is None, True):
            try:
                if self._connection is None:
                    self._connection = _open(self._endpoint)
                self._connection.request(method, target, data, headers)
                self._last = Response(self._connection.getresponse())
                return self._last
            except (http.client.RemoteDisconnected, BrokenPipeError, ConnectionResetError):
                # A kept connection the daemon closed meanwhile is opened again, once, if the
                # call may be repeated.
                self.close()
                if fresh or method not in ("GET", "HEAD"):
                    raise self._trouble("EOF") from None
            except PermissionError as error:
                raise ConnectError(
                    "permission denied while trying to connect to the daemon socket at "
                    f"{self._endpoint.url}: {error.strerror or error}"
                ) from None
            except TimeoutError:
                raise self._unreachable() from None
            except (OSError, http.client.HTTPException) as error:
                raise self._explain(error) from None
        raise self._unreachable()

    def _unreachable(self) -> ConnectError:
        return ConnectError(
            f"Cannot connect to the daemon at {self._endpoint.url}. Is the daemon running?"
        )

    def _trouble(self, text: str) -> ConnectError:
        return ConnectError(f"error during connect: {text}")

    def _explain(self, error: Exception) -> ConnectError:
        import http.client
        import ssl

        if isinstance(error, ssl.SSLError):
            return self._trouble(f"tls: {error.reason or error}")
        if isinstance(error, http.client.BadStatusLine) and self._endpoint.tls is None:
            return ConnectError(
                f"malformed HTTP response {str(error)!r}.\n"
                "* Are you trying to connect to a TLS-enabled daemon without TLS?"
            )
        if isinstance(error, ConnectionRefusedError | FileNotFoundError):
            return self._unreachable()
        return self._trouble(str(error))

    def _checked(self, reply: Response, target: str) -> Response:
        if 200 <= reply.status < 400:
            return reply
        content_type = reply._raw.getheader("Content-Type") or ""
        text = reply._raw.read(error_bytes_max).decode("utf-8", "replace")
        if not text:
            raise ApiError(
                f"request returned {reply.status} {reply._raw.reason} for API route and version "
                f"{target}, check if the server supports the requested API version",
                reply.status,
            )
        message = text
        if content_type.partition(";")[0] == "application/json":
            message = _message(text, reply)
        raise ApiError(f"Error response from daemon: {message.strip()}", reply.status)


def _message(text: str, reply: Response) -> str:
    import json

    try:
        message = json.loads(text).get("message", "")
    except (ValueError, AttributeError) as error:
        raise ApiError(f"Error reading JSON: {error}", reply.status) from None
    if message:
        return str(message)
    return f"API returned a {reply.status} ({reply._raw.reason}) but provided no error-message"


def _numbers(version: str) -> tuple[int, ...]:
    return tuple(int(part) for part in version.split("."))


def _open(endpoint: Endpoint) -> http.client.HTTPConnection:
    """A connection, already up."""
    import http.client

    if endpoint.scheme == "unix":
        local = http.client.HTTPConnection("api.moby.localhost")
        local.sock = socket.socket(socket.AF_UNIX)
        local.sock.connect(endpoint.rest)
        return local
    host, _, port = endpoint.rest.rpartition(":")
    host = host.strip("[]")
    remote = http.client.HTTPConnection(host, int(port))
    plain = socket.create_connection((host, int(port)), connect_seconds_max)
    plain.settimeout(None)
    remote.sock = plain
    if endpoint.tls is not None:
        remote.sock = _context(endpoint.tls).wrap_socket(plain, server_hostname=host)
    return remote


def _context(files: TLSFiles) -> ssl.SSLContext:
    """TLS 1.2 or later; the server is verified unless only encryption was asked for."""
    import ssl

    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    if not files.verify:
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    try:
        if files.verify and files.ca:
            context.load_verify_locations(files.ca)
        elif files.verify:
            context.load_default_certs()
        if files.cert and files.key:
            context.load_cert_chain(files.cert, files.key)
    except FileNotFoundError as error:
        name = error.filename or ", ".join(filter(None, (files.ca, files.cert, files.key)))
        raise CliError(f"unable to resolve docker endpoint: open {name}: no such file") from None
    except (OSError, ssl.SSLError) as error:
        raise CliError(f"unable to resolve docker endpoint: {error}") from None
    return context
