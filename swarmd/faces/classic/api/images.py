"""Routes about images: lists of all engines, pulls on all, the rest on one that has it."""

from __future__ import annotations

import json
from typing import Any
from urllib.parse import urlencode

from aiohttp import web

from swarmd.base.errors import NotFound
from swarmd.faces.classic.api.call import Call, as_json, empty
from swarmd.faces.classic.api.fanout import everywhere, feed_everywhere
from swarmd.faces.classic.api.filters import Filters
from swarmd.faces.classic.api.listing import image_lines
from swarmd.faces.classic.api.routing import Answer, Route, route
from swarmd.faces.classic.engines.creation import pull_lines
from swarmd.faces.classic.engines.engine import Engine
from swarmd.faces.classic.scheduler.names import image_matches
from swarmd.faces.classic.scheduler.wish import Wish
from swarmd.faces.http.refusal import Refusal, not_found


class Images:
    """Everything below /images, and /build and /commit."""

    def routes(self) -> list[Route]:
        """In the order they are tried: fixed paths before open ones."""
        there = "/images/{name}"
        return [
            route("GET", "/images/json", self.list),
            route("GET", "/images/search", self._any("/images/search")),
            route("GET", "/images/get", self.save),
            route("POST", "/images/create", self.create),
            route("POST", "/images/load", self.load),
            route("POST", "/build", self.build),
            route("POST", "/auth", self._any("/auth")),
            route("POST", "/commit", self.commit),
            *(route("GET", f"{there}/{v}", self._one(v)) for v in ("get", "history", "json")),
            route("GET", "/distribution/{name}/json", self._distribution),
            route("POST", f"{there}/push", self.push),
            route("POST", f"{there}/tag", self.tag),
            route("DELETE", there, self.remove),
        ]

    async def list(self, call: Call) -> web.StreamResponse:
        """`images`."""
        filters = call.filters()
        if "filter" in call.query and "reference" not in filters:
            filters = Filters({"reference": [call.query["filter"]]})
        return as_json(image_lines(call.cluster.members(), filters, all=call.flag("all")))

    async def create(self, call: Call) -> web.StreamResponse:
        """`pull` and `import`, on every engine."""
        image, tag = call.query.get("fromImage", ""), call.query.get("tag", "")
        if not image:
            return await feed_everywhere(call, "Importing image", "/images/create")
        reference = image + (("@" if ":" in tag else ":") + tag if tag else "")
        auth = call.request.headers.get("X-Registry-Auth", "")
        return await everywhere(
            call, f"Pulling {reference}", lambda engine: pull_lines(engine, reference, auth)
        )

    async def load(self, call: Call) -> web.StreamResponse:
        """`load`, on every engine."""
        return await feed_everywhere(call, "Loading Image", "/images/load")

    async def save(self, call: Call) -> web.StreamResponse:
        """Several images as one archive, from an engine that has them all."""
        names = [value for key, value in call.pairs if key == "names"]
        for engine in call.cluster.members():
            if engine.healthy and all(_has(engine, name) for name in names):
                return await call.forward(engine, "/images/get")
        raise not_found(
            f"Unable to find a healthy engine containing all images: [{' '.join(names)}]"
        )

    async def build(self, call: Call) -> web.StreamResponse:
        """Build on a node that the build arguments' conditions and reservations allow."""
        if call.query.get("version") == "2":
            raise Refusal(501, "BuildKit is not supported in clustering mode: DOCKER_BUILDKIT=0")
        arguments = _arguments(call.query.get("buildargs", ""))
        host = {"Memory": call.number("memory"), "CpuShares": call.number("cpushares")}
        env = [f"{key}={'' if value is None else value}" for key, value in arguments.items()]
        engine = call.cluster.select(Wish({"Env": env, "HostConfig": host}))[0]
        kept = {
            key: value
            for key, value in arguments.items()
            if key.partition(":")[0] not in ("constraint", "affinity", "whitelist")
        }
        pairs = [(k, json.dumps(kept) if k == "buildargs" else v) for k, v in call.pairs]
        answer = await call.forward(engine, "/build", pairs=pairs)
        await engine.refresh_images()
        return answer

    async def commit(self, call: Call) -> web.StreamResponse:
        """A container's image, on its engine."""
        engine, container = call.container(call.query.get("container", ""))
        pairs = [(key, container.id if key == "container" else v) for key, v in call.pairs]
        return await call.forward(engine, "/commit", pairs=pairs, refresh=Engine.refresh_images)

    async def push(self, call: Call) -> web.StreamResponse:
        """From an engine that has the image."""
        name = call.names["name"]
        tag = call.query.get("tag", "")
        engine = _engine_with(call, f"{name}:{tag}" if tag else name)
        return await call.forward(engine, f"/images/{name}/push")

    async def tag(self, call: Call) -> web.StreamResponse:
        """Wherever the image is."""
        name = call.names["name"]
        query = urlencode([(k, v) for k, v in call.pairs if k in ("repo", "tag", "force")])
        await _wherever(call, "POST", f"/images/{name}/tag", query, f"No such image: {name}")
        return empty(201)

    async def remove(self, call: Call) -> web.StreamResponse:
        """Wherever the image is."""
        name = call.names["name"]
        query = urlencode([(k, v) for k, v in call.pairs if k in ("force", "noprune")])
        gone = await _wherever(call, "DELETE", f"/images/{name}", query, f"No such image {name}")
        return as_json([line for lines in gone for line in lines or ()])

    def _one(self, verb: str) -> Answer:
        async def answer(call: Call) -> web.StreamResponse:
            name = call.names["name"]
            return await call.forward(_engine_with(call, name), f"/images/{name}/{verb}")

        return answer

    def _any(self, path: str) -> Answer:
        async def answer(call: Call) -> web.StreamResponse:
            return await call.forward(call.cluster.any_engine(), path)

        return answer

    async def _distribution(self, call: Call) -> web.StreamResponse:
        path = f"/distribution/{call.names['name']}/json"
        return await call.forward(call.cluster.any_engine(), path)


def _has(engine: Engine, name: str) -> bool:
    with_tag = ":" in name
    return any(image_matches(image, name, with_tag=with_tag) for image in engine.picture.images)


def _engine_with(call: Call, name: str) -> Engine:
    for engine in call.cluster.members():
        if engine.healthy and _has(engine, name):
            return engine
    raise not_found(f"No such image: {name}")


async def _wherever(call: Call, method: str, path: str, query: str, nowhere: str) -> list[Any]:
    """The same request to every engine that has the image; what they answered.

    Raises `NotFound` when none has it, and the engines' refusals as one 500 or 409.
    """
    name = call.names["name"]
    engines = [e for e in call.cluster.members() if e.healthy and _has(e, name)]
    if not engines:
        raise NotFound(nowhere)
    answers: list[Any] = []
    refusals: list[tuple[Engine, Refusal]] = []
    for engine in engines:
        try:
            async with engine.checked() as calls:
                target = call.target(engine, path, []) + (f"?{query}" if query else "")
                answers.append(calls.link.decode(*await calls.link.call(method, target)))
            await engine.refresh_images()
        except Refusal as error:
            refusals.append((engine, error))
    if refusals:
        text = "\n".join(f"{engine.name}: {error.message}" for engine, error in refusals)
        raise Refusal(refusals[0][1].status, text)
    return answers


def _arguments(text: str) -> dict[str, Any]:
    try:
        found = json.loads(text) if text else {}
    except ValueError:
        return {}
    return found if isinstance(found, dict) else {}
