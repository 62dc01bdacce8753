"""Routes about containers and what runs in them."""

from __future__ import annotations

import json
from collections import OrderedDict

from aiohttp import web

from swarmd.base.errors import AlreadyExists
from swarmd.faces.classic.api.call import Call, Refresh, as_json
from swarmd.faces.classic.api.listing import container_line, is_shown, newest_first, place_ports
from swarmd.faces.classic.api.routing import Answer, Route, route
from swarmd.faces.classic.engines.creation import Creator, name_conflict
from swarmd.faces.classic.engines.engine import Engine
from swarmd.faces.classic.scheduler.wish import Wish
from swarmd.faces.http.refusal import bad_request, not_found

execs_max = 10_000


class Containers:
    """Everything below /containers and /exec."""

    def __init__(self, creator: Creator) -> None:
        self._creator = creator
        # Exec id -> address of its engine, oldest first; inspections tell them only later.
        self._execs: OrderedDict[str, str] = OrderedDict()

    def routes(self) -> list[Route]:
        """In the order they are tried: fixed paths before open ones."""
        plain = ("export", "changes", "top", "logs", "stats", "archive", "attach/ws")
        changing = ("kill", "pause", "unpause", "restart", "start", "stop", "update")
        there = "/containers/{name}"
        return [
            route("GET", "/containers/json", self.list),
            route("GET", "/containers/ps", self.list),
            route("POST", "/containers/create", self.create),
            *(route("GET", f"{there}/{verb}", self._relay(verb)) for verb in plain),
            *(route("POST", f"{there}/{v}", self._relay(v)) for v in ("attach", "resize", "wait")),
            *(route("POST", f"{there}/{v}", self._relay(v, changes=True)) for v in changing),
            route("HEAD", f"{there}/archive", self._relay("archive")),
            route("PUT", f"{there}/archive", self._relay("archive")),
            route("POST", f"{there}/copy", self._relay("copy")),
            route("GET", f"{there}/json", self.inspect),
            route("POST", f"{there}/rename", self.rename),
            route("POST", f"{there}/exec", self.exec_create),
            route("POST", "/exec/{name}/start", self._exec("start")),
            route("POST", "/exec/{name}/resize", self._exec("resize")),
            route("GET", "/exec/{name}/json", self._exec("json")),
            route("DELETE", there, self.remove),
        ]

    async def list(self, call: Call) -> web.StreamResponse:
        """`ps`."""
        cluster, filters = call.cluster, call.filters()
        limit = call.number("limit")
        everything = call.flag("all") or limit > 0 or "exited" in filters.get("status")
        last = None
        if before := call.query.get("before"):
            found = cluster.container(before)
            if found is None:
                raise not_found(f"No such container {before}")
            last, everything = found[1].id, True
        pairs = newest_first(
            [p for p in cluster.containers() if is_shown(p, filters, all=everything)]
        )
        if limit > 0:
            pairs = pairs[:limit]
        if last is not None:
            ids = [container.id for _, container in pairs]
            pairs = pairs[ids.index(last) + 1 :] if last in ids else []
        now = cluster.clock.now()
        return as_json([container_line(pair, now) for pair in pairs])

    async def create(self, call: Call) -> web.StreamResponse:
        """Choose a node and make the container there."""
        wish = Wish(await call.body())
        wish.validate()
        names = {engine.name for engine in call.cluster.members()}
        endpoints = wish.body["NetworkingConfig"].get("EndpointsConfig")
        if isinstance(endpoints, dict):
            # The engine does not know its networks by NODE/NAME.
            wish.body["NetworkingConfig"]["EndpointsConfig"] = {
                _without_node(name, names): value for name, value in endpoints.items()
            }
        auth = call.request.headers.get("X-Registry-Auth", "")
        _, id = await self._creator.create(wish, call.query.get("name", ""), auth)
        return as_json({"Id": id, "Warnings": []}, 201)

    async def inspect(self, call: Call) -> web.StreamResponse:
        """The engine's inspection, with the node it comes from."""
        engine, container = call.container()
        async with engine.checked() as calls:
            target = call.target(engine, f"/containers/{container.id}/json")
            info = await calls.link.get_json(target)
        info["Node"] = engine.describe()
        place_ports(info, engine.ip)
        return as_json(info)

    async def rename(self, call: Call) -> web.StreamResponse:
        """Names are unique in the cluster, not only on the engine."""
        engine, container = call.container()
        name = call.query.get("name", "")
        if call.cluster.name_is_taken(name):
            raise AlreadyExists(name_conflict(name))
        path = f"/containers/{container.id}/rename"
        return await call.forward(engine, path, refresh=_after(container.id))

    async def remove(self, call: Call) -> web.StreamResponse:
        """Remove it from its engine."""
        engine, container = call.container()
        path = f"/containers/{container.id}"
        return await call.forward(engine, path, refresh=_after(container.id))

    async def exec_create(self, call: Call) -> web.StreamResponse:
        """Prepare a command; remember where."""
        engine, container = call.container()
        body = await call.body()
        if not body.get("Cmd"):
            raise bad_request("No exec command specified")
        async with engine.checked() as calls:
            target = call.target(engine, f"/containers/{container.id}/exec")
            data = json.dumps(body).encode()
            head, answer = await calls.link.call("POST", target, data, "application/json")
            made = calls.link.decode(head, answer)
        self._execs[str(made["Id"])] = engine.address
        if len(self._execs) > execs_max:
            self._execs.popitem(last=False)
        return as_json(made, 201)

    def _exec(self, verb: str) -> Answer:
        async def answer(call: Call) -> web.StreamResponse:
            id = call.names["name"]
            return await call.forward(self._exec_engine(call, id), f"/exec/{id}/{verb}")

        return answer

    def _exec_engine(self, call: Call, id: str) -> Engine:
        engine = call.cluster.engines.get(self._execs.get(id, ""))
        if engine is not None:
            return engine
        for candidate, container in call.cluster.containers():
            if id in (container.info.get("ExecIDs") or ()):
                return candidate
        raise not_found(f"Exec {id} not found")

    def _relay(self, verb: str, *, changes: bool = False) -> Answer:
        async def answer(call: Call) -> web.StreamResponse:
            engine, container = call.container()
            path = f"/containers/{container.id}/{verb}"
            refresh = _after(container.id) if changes else None
            return await call.forward(engine, path, refresh=refresh)

        return answer


def _after(id: str) -> Refresh:
    async def refresh(engine: Engine) -> None:
        await engine.refresh_container(id)

    return refresh


def _without_node(name: str, nodes: set[str]) -> str:
    node, slash, rest = name.partition("/")
    return rest if slash and node in nodes else name
