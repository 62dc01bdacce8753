"""A small engine on loopback: lists, inspections, events and raw streams from a dictionary."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import unquote

from aiohttp import web

GIB = 1 << 30
STARTED = "2023-11-14T22:10:00.123456789Z"


@dataclass
class FakeEngine:
    """What it holds, and what it was asked."""

    name: str
    labels: list[str] = field(default_factory=list)
    containers: dict[str, dict[str, Any]] = field(default_factory=dict)
    images: list[dict[str, Any]] = field(default_factory=list)
    networks: list[dict[str, Any]] = field(default_factory=list)
    volumes: dict[str, dict[str, Any]] = field(default_factory=dict)
    asked: list[tuple[str, str]] = field(default_factory=list)
    bodies: list[bytes] = field(default_factory=list)
    pullable: bool = False
    port: int = 0
    _listeners: list[asyncio.Queue[dict[str, Any]]] = field(default_factory=list)
    _server: asyncio.Server | None = None
    _web: web.Server | None = None

    @property
    def address(self) -> str:
        """Where it listens."""
        return f"127.0.0.1:{self.port}"

    def add(self, name: str, **config: Any) -> str:
        """A running container; its id."""
        id = f"{name}{self.name}".encode().hex().ljust(64, "0")
        host = config.pop("HostConfig", {})
        self.containers[id] = {
            "Id": id,
            "Name": f"/{name}",
            "Created": STARTED,
            "Config": {"Image": "box", "Labels": {}, **config},
            "HostConfig": host,
            "State": {"Running": True, "StartedAt": STARTED, "FinishedAt": "0001-01-01T00:00:00Z"},
            "NetworkSettings": {"Ports": {"80/tcp": [{"HostIp": "0.0.0.0", "HostPort": "80"}]}},
        }
        return id

    async def tell(self, kind: str, action: str, id: str) -> None:
        """One event to everybody who listens."""
        event = {"Type": kind, "Action": action, "Actor": {"ID": id, "Attributes": {}}, "id": id}
        for queue in self._listeners:
            queue.put_nowait(event)

    @property
    def listeners(self) -> int:
        """How many follow the events."""
        return len(self._listeners)

    async def start(self) -> None:
        """Listen, on the same port as before if there was one."""
        self._web = web.Server(self._answer)
        loop = asyncio.get_running_loop()
        self._server = await loop.create_server(self._web, "127.0.0.1", self.port)
        self.port = self._server.sockets[0].getsockname()[1]

    async def stop(self) -> None:
        """Vanish."""
        assert self._server is not None and self._web is not None
        self._server.close()
        for connection in list(self._web.connections):
            connection.force_close()
        await self._web.shutdown(0.1)

    async def _answer(self, request: web.BaseRequest) -> web.StreamResponse:
        path = unquote(request.path)
        if path.startswith("/v1."):
            path = "/" + path.split("/", 2)[2]
        self.asked.append((request.method, path))
        if path == "/events":
            return await self._events(request)
        body = await request.read()
        self.bodies.append(body)
        return await self._object(request, path, body)

    async def _events(self, request: web.BaseRequest) -> web.StreamResponse:
        response = web.StreamResponse()
        response.enable_chunked_encoding()
        await response.prepare(request)
        await response.write(b"\n")
        queue: asyncio.Queue[dict[str, Any]] = asyncio.Queue()
        self._listeners.append(queue)
        try:
            while True:
                await response.write(json.dumps(await queue.get()).encode())
        finally:
            self._listeners.remove(queue)

    async def _object(self, request: web.BaseRequest, path: str, body: bytes) -> web.StreamResponse:
        fixed: dict[str, Any] = {
            "/_ping": {},
            "/version": {"Version": "20.10", "ApiVersion": "1.41", "MinAPIVersion": "1.12"},
            "/info": {
                "ID": "SAME",
                "Name": self.name,
                "NCPU": 4,
                "MemTotal": 4 * GIB,
                "Driver": "overlay2",
                "Labels": self.labels,
            },
            "/images/json": self.images,
            "/networks": self.networks,
            "/volumes": {"Volumes": list(self.volumes.values())},
        }
        if request.method == "GET" and path in fixed:
            return web.json_response(fixed[path])
        parts = path.strip("/").split("/")
        if path == "/containers/json":
            return web.json_response([self._line(id) for id in sorted(self.containers)])
        if parts[0] == "containers":
            return await self._container(request, parts[1:], body)
        if path == "/images/create":
            line = {"status": "Downloading"} if self.pullable else {"error": "no such host"}
            if self.pullable:
                tag = f"{request.query['fromImage']}:{request.query['tag']}"
                self.images.append({"Id": f"sha256:{tag}", "RepoTags": [tag], "Created": 1})
            return web.Response(text=json.dumps(line) + "\n")
        if path == "/volumes/create":
            made = {"Driver": "local", **json.loads(body)}
            self.volumes[made["Name"]] = made
            return web.json_response(made, status=201)
        if parts[0] == "volumes" and request.method == "DELETE":
            del self.volumes[parts[1]]
            return web.Response(status=204)
        if parts[0] == "exec":
            return web.json_response({"exec": parts[1], "on": self.name})
        return web.json_response({"message": f"page not found: {path}"}, status=404)

    def _line(self, id: str) -> dict[str, Any]:
        info = self.containers[id]
        return {
            "Id": id,
            "Names": [info["Name"]],
            "Image": info["Config"]["Image"],
            "Created": 1_700_000_000,
            "State": "running" if info["State"]["Running"] else "exited",
            "Status": "whatever",
            "Labels": info["Config"].get("Labels") or {},
            "Ports": [{"IP": "0.0.0.0", "PrivatePort": 80, "PublicPort": 80, "Type": "tcp"}],
        }

    async def _container(
        self, request: web.BaseRequest, parts: list[str], body: bytes
    ) -> web.StreamResponse:
        if parts == ["create"]:
            wanted = json.loads(body)
            if not any(wanted["Image"] in image["RepoTags"] for image in self.images):
                text = f"No such image: {wanted['Image']}"
                return web.json_response({"message": text}, status=404)
            host = wanted.pop("HostConfig")
            id = self.add(request.query.get("name", "unnamed"), HostConfig=host, **wanted)
            return web.json_response({"Id": id, "Warnings": []}, status=201)
        info = self.containers.get(parts[0])
        if info is None:
            return web.json_response({"message": f"No such container: {parts[0]}"}, status=404)
        if request.method == "DELETE":
            del self.containers[parts[0]]
            return web.Response(status=204)
        match parts[1]:
            case "json":
                return web.json_response(info)
            case "stop":
                info["State"] |= {"Running": False, "ExitCode": 137, "FinishedAt": STARTED}
                return web.Response(status=204)
            case "rename":
                info["Name"] = "/" + request.query["name"]
                return web.Response(status=204)
            case "exec":
                return web.json_response({"Id": f"exec-{self.name}"}, status=201)
            case "logs":
                return web.Response(body=b"logged by " + self.name.encode())
        return web.json_response({"message": "refused by the engine"}, status=409)


@asynccontextmanager
async def fake_engines(*names: str) -> AsyncIterator[list[FakeEngine]]:
    """Engines of those names, listening."""
    engines = [FakeEngine(name) for name in names]
    for engine in engines:
        await engine.start()
    try:
        yield engines
    finally:
        for engine in engines:
            await engine.stop()
