"""Routes about networks and volumes."""

from __future__ import annotations

import json
from typing import Any

from aiohttp import web

from swarmd.faces.classic.api.call import Call, as_json, empty, quietly
from swarmd.faces.classic.api.listing import network_lines, volume_lines
from swarmd.faces.classic.api.routing import Answer, Route, route
from swarmd.faces.classic.engines.calls import segment
from swarmd.faces.classic.engines.engine import Engine
from swarmd.faces.classic.engines.finding import (
    FoundNetwork,
    find_network,
    find_volume,
    networks,
    volumes,
)
from swarmd.faces.classic.scheduler.wish import Wish
from swarmd.faces.http.refusal import Refusal, not_found


class Networks:
    """Everything below /networks."""

    def routes(self) -> list[Route]:
        """In the order they are tried."""
        there = "/networks/{name}"
        return [
            route("GET", "/networks", self.list),
            route("POST", "/networks/create", self.create),
            route("POST", f"{there}/connect", self._membership("connect")),
            route("POST", f"{there}/disconnect", self._membership("disconnect")),
            route("GET", there, self.inspect),
            route("DELETE", there, self.remove),
        ]

    async def list(self, call: Call) -> web.StreamResponse:
        """`network ls`."""
        return as_json(network_lines(networks(call.cluster), call.filters()))

    async def inspect(self, call: Call) -> web.StreamResponse:
        """One network, with its containers on all engines."""
        return as_json(_found(call).network)

    async def create(self, call: Call) -> web.StreamResponse:
        """On the node of NODE/NAME, or on one the scheduler picks."""
        body = await call.body()
        engine, name = _place(call, str(body.get("Name") or ""))
        request = {**body, "Name": name, "Driver": body.get("Driver") or "overlay"}
        async with engine.checked() as calls:
            made = await calls.post("/networks/create", request)
        for other in call.cluster.members():
            # A global network shows on every engine.
            if other.healthy and (other is engine or request["Driver"] == "overlay"):
                await quietly(Engine.refresh_networks, other)
        return as_json(made, 201)

    async def remove(self, call: Call) -> web.StreamResponse:
        """Remove it where it was found."""
        found = _found(call)
        async with found.engine.checked() as calls:
            await calls.delete(f"/networks/{segment(found.network['Id'])}")
        for engine in call.cluster.members():
            engine.picture.networks.pop(str(found.network["Id"]), None)
        return empty()

    def _membership(self, verb: str) -> Answer:
        async def answer(call: Call) -> web.StreamResponse:
            found = _found(call)
            body = await call.body()
            if not body.get("Container"):
                raise not_found("Container is not specified")
            engine, container = call.container(str(body["Container"]))
            data = json.dumps({**body, "Container": container.id}).encode()

            async def refresh(engine: Engine) -> None:
                await engine.refresh_networks()
                await engine.refresh_container(container.id)

            path = f"/networks/{found.network['Id']}/{verb}"
            return await call.forward(engine, path, body=data, refresh=refresh)

        return answer


class Volumes:
    """Everything below /volumes."""

    def routes(self) -> list[Route]:
        """In the order they are tried."""
        return [
            route("GET", "/volumes", self.list),
            route("POST", "/volumes/create", self.create),
            route("GET", "/volumes/{name}", self.inspect),
            route("DELETE", "/volumes/{name}", self.remove),
        ]

    async def list(self, call: Call) -> web.StreamResponse:
        """`volume ls`."""
        lines = volume_lines(volumes(call.cluster), call.filters())
        return as_json({"Volumes": lines, "Warnings": None})

    async def inspect(self, call: Call) -> web.StreamResponse:
        """One volume."""
        name = call.names["name"]
        found = find_volume(call.cluster, name)
        if found is None:
            raise not_found(f"No such volume: {name}")
        return as_json(found.volume)

    async def create(self, call: Call) -> web.StreamResponse:
        """On the node of NODE/NAME, otherwise on every healthy engine under one name."""
        body = await call.body()
        name = str(body.get("Name") or "") or call.cluster.entropy.token(32).hex()
        wish = Wish({"Labels": body.get("Labels")})
        if "/" in name:
            engine, name = _place(call, name)
            engines = [engine]
        elif wish.expressions("whitelists"):
            engines = call.cluster.select(wish)
        else:
            engines = [engine for engine in call.cluster.members() if engine.healthy]
        made: Any = None
        for engine in engines:
            async with engine.checked() as calls:
                made = await calls.post("/volumes/create", {**body, "Name": name})
            await quietly(Engine.refresh_volumes, engine)
        if made is None:
            raise Refusal(500, "No healthy node available in the cluster")
        return as_json(made, 201)

    async def remove(self, call: Call) -> web.StreamResponse:
        """NODE/NAME there, NAME wherever it is."""
        name = call.names["name"]
        targets = [
            found
            for found in volumes(call.cluster)
            if name in (found.volume["Name"], f"{found.engine.name}/{found.volume['Name']}")
            and found.engine.healthy
        ]
        if not targets:
            raise not_found(f"No such volume {name}")
        refusals: list[str] = []
        status = 500
        for found in targets:
            try:
                async with found.engine.checked() as calls:
                    path = f"/volumes/{segment(found.volume['Name'])}"
                    await calls.delete(path, force=call.flag("force") or None)
                found.engine.picture.volumes.pop(found.volume["Name"], None)
            except Refusal as error:
                status = error.status
                refusals.append(f"{found.engine.name}: {error.message}")
        if refusals:
            raise Refusal(status, "\n".join(refusals))
        return empty()


def _found(call: Call) -> FoundNetwork:
    name = call.names["name"]
    found = find_network(call.cluster, name)
    if found is None:
        raise not_found(f"No such network: {name}")
    return found


def _place(call: Call, name: str) -> tuple[Engine, str]:
    """The engine that NODE/NAME or the scheduler says, and the name there."""
    node, slash, rest = name.partition("/")
    env = [f"constraint:node=={node}"] if slash else []
    return call.cluster.select(Wish({"Env": env}))[0], rest if slash else name
