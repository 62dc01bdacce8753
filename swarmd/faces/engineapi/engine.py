"""The local engine behind its unix socket, and what its ping says of it."""

from __future__ import annotations

from dataclasses import dataclass

from swarmd.faces.http.link import Connection, Head, Link

__all__ = ["Connection", "EngineFacts", "EngineLink", "Head", "parse_version"]


@dataclass(frozen=True, slots=True)
class EngineFacts:
    """What the engine's ping says."""

    api_version: tuple[int, int]
    builder_version: str
    experimental: str
    server: str


def parse_version(text: str) -> tuple[int, int] | None:
    """``1.41`` as (1, 41)."""
    major, dot, minor = text.partition(".")
    if not dot or not (major.isdigit() and minor.isdigit()):
        return None
    return int(major), int(minor)


class EngineLink(Link):
    """The engine of this node."""

    def __init__(self, path: str) -> None:
        super().__init__(path, "the container engine of this node")

    @property
    def path(self) -> str:
        """Path of the socket."""
        return self.address

    async def facts(self) -> EngineFacts:
        """Ask the engine what it is."""
        head, _ = await self.call("GET", "/_ping")
        version = parse_version(head.header("Api-Version") or "") or (1, 24)
        return EngineFacts(
            api_version=version,
            builder_version=head.header("Builder-Version") or "",
            experimental=head.header("Docker-Experimental") or "false",
            server=head.header("Server") or "",
        )
