"""The method table, read from the descriptors: no hand-made list of what exists or who may call.

Which services a manager hands on to the leader is not in the descriptors; that one table
is here (wire/services.tsv, columns on_2377 and on_control_socket).
"""

from __future__ import annotations

import functools
import importlib
import pkgutil
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, cast

from google.protobuf.descriptor import MethodDescriptor
from google.protobuf.message import DecodeError, Message
from google.protobuf.message_factory import GetMessageClass

from swarmd.api import pb
from swarmd.api.pb import options_pb2
from swarmd.base.errors import Internal, InvariantViolation, invariant
from swarmd.base.parsing import parse

PACKAGE = "docker.swarmkit.v1"
_PROXIED_ON_PORT = frozenset(
    ("CA", "NodeCA", "Dispatcher", "LogBroker", "RaftMembership", "ResourceAllocator")
)
_PROXIED_IN_PROCESS = (_PROXIED_ON_PORT - {"RaftMembership"}) | {"Control", "Logs"}
# By these names Control's methods that change nothing can be told from the others.
_READING = ("Get", "List")
# Members talk Raft over the port only; the stock control socket does not register these.
_PORT_ONLY = frozenset(("Raft", "RaftMembership"))
_WORD_START = re.compile(r"(?<=[a-z0-9])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z])")


@dataclass(frozen=True, slots=True)
class Method:
    """One method of one service, with all a door needs to know about it."""

    service: str
    """Full name, "docker.swarmkit.v1.CA"."""
    name: str
    path: str
    """As on the wire, "/docker.swarmkit.v1.CA/GetUnlockKey"."""
    short: str
    """The name callers use, "CA/GetUnlockKey"."""
    request: type[Message]
    response: type[Message]
    client_streaming: bool
    server_streaming: bool
    roles: tuple[str, ...]
    """Organisational units of which one suffices; empty for insecure methods."""
    insecure: bool
    """True when no certificate is needed."""
    proxied: bool
    """On port 2377: handed on to the leader."""
    proxied_in_process: bool
    """For calls of this manager itself: handed on to the leader."""
    in_process: bool
    """Offered to calls of this manager itself at all."""
    reads: bool
    """Changes nothing and shows the cluster's state, which must not be an old one."""

    def parse(self, raw: bytes | None) -> Any:
        """An answer off the wire. Raises `Internal`."""
        if raw is None:
            # Stock managers end PublishLogs so when told `close`: OK, but no message.
            raise Internal(f"{self.short}: ended without an answer")
        try:
            return parse(self.response, raw)
        except DecodeError as error:
            raise Internal(f"{self.short}: the answer cannot be read") from error

    @property
    def streaming(self) -> bool:
        """True when either side sends more than one message."""
        return self.client_streaming or self.server_streaming


def python_name(name: str) -> str:
    """Snake case of a wire name: GetRootCACertificate -> get_root_ca_certificate."""
    return _WORD_START.sub("_", name).lower()


def _method(descriptor: MethodDescriptor) -> Method:
    service = descriptor.containing_service
    options = descriptor.GetOptions()
    # The stubs do not know the type of an extension field.
    extensions = cast(Mapping[object, Any], options.Extensions)
    rule = extensions[options_pb2.tls_authorization]
    invariant(rule.insecure or len(rule.roles) > 0, f"{descriptor.full_name} says not who may call")
    return Method(
        service=service.full_name,
        name=descriptor.name,
        path=f"/{service.full_name}/{descriptor.name}",
        short=f"{service.name}/{descriptor.name}",
        request=GetMessageClass(descriptor.input_type),
        response=GetMessageClass(descriptor.output_type),
        client_streaming=descriptor.client_streaming,
        server_streaming=descriptor.server_streaming,
        roles=tuple(rule.roles),
        insecure=rule.insecure,
        proxied=service.name in _PROXIED_ON_PORT,
        proxied_in_process=service.name in _PROXIED_IN_PROCESS,
        in_process=service.name not in _PORT_ONLY,
        reads=service.name == "Control" and descriptor.name.startswith(_READING),
    )


def _descriptors() -> Iterator[MethodDescriptor]:
    for module in sorted(info.name for info in pkgutil.iter_modules(pb.__path__)):
        if module.endswith("_pb2"):
            file = importlib.import_module(f"{pb.__name__}.{module}").DESCRIPTOR
            for service in file.services_by_name.values():
                yield from service.methods


@functools.cache
def table() -> Mapping[str, Method]:
    """Every method of every service, by path."""
    return {method.path: method for method in map(_method, _descriptors())}


@functools.cache
def services() -> frozenset[str]:
    """Full names of all services of the wire."""
    return frozenset(method.service for method in table().values())


@functools.cache
def find(short: str) -> Method:
    """The method that callers name "Service/Method". Raises `KeyError` for a wrong name."""
    return table()[f"/{PACKAGE}.{short}"]


@functools.cache
def _by_service() -> Mapping[str, Sequence[tuple[str, Method]]]:
    """The methods of each service, with their names in Python."""
    found: dict[str, list[tuple[str, Method]]] = {}
    for method in table().values():
        found.setdefault(method.service, []).append((python_name(method.name), method))
    return found


@dataclass(frozen=True, slots=True)
class Bound:
    """A method and the handler that a service object gives it."""

    method: Method
    handler: Callable[..., Any]
    at_once: Callable[..., Any] | None = None
    """The same as a plain function, where the service has one: it waits for nothing."""


def bind(service_objects: Sequence[object]) -> dict[str, Bound]:
    """Match service objects with the table, by path.

    Each object names its service in `SERVICE`; every method of that service must be there,
    so that a forgotten one is seen at start and not by the first caller. A unary method
    that waits for nothing may be there a second time, as a plain function `NAME_at_once`.
    """
    bound: dict[str, Bound] = {}
    for item in service_objects:
        full_name = str(getattr(item, "SERVICE", ""))
        wanted = _by_service().get(full_name)
        invariant(wanted is not None, f"{type(item).__name__} names no known SERVICE")
        for name, method in wanted or ():
            handler = getattr(item, name, None)
            if handler is None:
                raise InvariantViolation(f"{type(item).__name__} lacks {method.short}")
            if method.path in bound:
                raise InvariantViolation(f"two objects serve {method.short}")
            at_once = None if method.streaming else getattr(item, f"{name}_at_once", None)
            bound[method.path] = Bound(method, handler, at_once)
    return bound
