"""Making one container: choose a node, hold its place, create, pull if need be, choose again."""

from __future__ import annotations

import logging
from collections.abc import AsyncGenerator
from contextlib import aclosing
from typing import Any

from swarmd.base.errors import AlreadyExists
from swarmd.faces.classic.engines.cluster import Cluster
from swarmd.faces.classic.engines.engine import Engine
from swarmd.faces.classic.engines.finding import find_network
from swarmd.faces.classic.scheduler.names import image_matches, split_reference
from swarmd.faces.classic.scheduler.node import Container
from swarmd.faces.classic.scheduler.wish import Wish
from swarmd.faces.http.refusal import Refusal

log = logging.getLogger("classic")

_CONFLICT = (
    "Conflict: The name {name} is already assigned. You have to delete (or rename) that container "
    "to be able to assign {name} to a container again."
)


class ImageMissing(Refusal):
    """The engine has no such image and could not get it."""


class Creator:
    """Creates containers in a cluster."""

    def __init__(self, cluster: Cluster, retries: int = 0) -> None:
        """`retries` is how often another try is made when an engine refuses."""
        self._cluster = cluster
        self._retries = retries

    async def create(self, wish: Wish, name: str, auth: str) -> tuple[Engine, str]:
        """Make the container; its engine and id. `auth` is the client's X-Registry-Auth.

        Raises `NoNode`, `AlreadyExists` or what the engine answered (`Refusal`).
        """
        retries = self._retries
        while True:
            try:
                return await self._once(wish, name, auth, near_image=False)
            except ImageMissing:
                # Some other node may have it, though this one cannot pull it.
                if wish.has_node_constraint() or not self._somebody_has(wish.image):
                    raise
                return await self._once(wish, name, auth, near_image=True)
            except Refusal as error:
                if retries <= 0:
                    raise
                retries -= 1
                log.warning("Failed to create container: %s, retrying", error.message)

    def _somebody_has(self, image: str) -> bool:
        return any(
            image_matches(known, image)
            for engine in self._cluster.members()
            for known in engine.picture.images
        )

    async def _once(
        self, wish: Wish, name: str, auth: str, *, near_image: bool
    ) -> tuple[Engine, str]:
        cluster = self._cluster
        if cluster.name_is_taken(name):
            raise AlreadyExists(name_conflict(name))
        if not wish.swarm_id:
            wish.set_swarm_id(cluster.entropy.token(32).hex())
        self._settle_network(wish)
        asked = wish.copy()
        if near_image:
            asked.add("affinities", f"image=={wish.image}")
        # From here to `pending` nothing may be awaited: two requests must not see one place.
        engine = cluster.select(asked)[0]
        names = [f"/{name.removeprefix('/')}"] if name else []
        cluster.pending[wish.swarm_id] = Container(
            engine.id, engine.name, wish, {"Id": "", "Names": names, "Labels": wish.labels}
        )
        try:
            id = await self._on(engine, wish, name, auth)
            await engine.refresh_container(id)
        finally:
            del cluster.pending[wish.swarm_id]
        return engine, id

    def _settle_network(self, wish: Wish) -> None:
        """A network that only one node has pulls the container to that node."""
        found = find_network(self._cluster, wish.network_mode)
        if found is None or found.network.get("Scope") != "local":
            return
        if not wish.has_node_constraint():
            wish.add("constraints", f"node==~{found.engine.name}")
        wish.host["NetworkMode"] = found.network["Name"]

    async def _on(self, engine: Engine, wish: Wish, name: str, auth: str) -> str:
        body = self._bare_names(wish).for_engine(engine.picture.cpus)
        try:
            return await self._post(engine, body, name)
        except Refusal as error:
            if error.status != 404 or "image" not in error.message.lower():
                raise
        await self._pull(engine, wish.image, auth)
        return await self._post(engine, body, name)

    async def _post(self, engine: Engine, body: dict[str, Any], name: str) -> str:
        async with engine.checked() as calls:
            made = await calls.post("/containers/create", body, name=name or None)
        return str(made["Id"])

    async def _pull(self, engine: Engine, image: str, auth: str) -> None:
        try:
            async with aclosing(pull_lines(engine, image, auth)) as lines:
                async for line in lines:
                    if line.get("error"):
                        raise ImageMissing(404, str(line["error"]))
        except ImageMissing:
            raise
        except Refusal as error:
            raise ImageMissing(error.status, error.message) from error
        await engine.refresh_images()

    def _bare_names(self, wish: Wish) -> Wish:
        """Dependencies may be called NODE/NAME; the engine knows them by id."""
        wish = wish.copy()
        for key in ("VolumesFrom", "Links"):
            if wish.host.get(key):
                wish.host[key] = [self._bare(str(item)) for item in wish.host[key]]
        mode = wish.network_mode
        if mode.startswith("container:"):
            wish.host["NetworkMode"] = "container:" + self._bare(mode.removeprefix("container:"))
        return wish

    def _bare(self, reference: str) -> str:
        name, colon, rest = reference.partition(":")
        if "/" not in name.lstrip("/"):
            return reference
        found = self._cluster.container(name)
        return reference if found is None else f"{found[1].id}{colon}{rest}"


def name_conflict(name: str) -> str:
    """What is said when a name is taken."""
    return _CONFLICT.format(name=name)


def pull_lines(engine: Engine, image: str, auth: str) -> AsyncGenerator[dict[str, Any], None]:
    """The engine's progress of pulling `image`, line by line. Raises `Refusal`."""
    name, tag = split_reference(image)
    target = engine.calls.target("/images/create", fromImage=name, tag=tag or "latest")
    return engine.calls.lines("POST", target, {"X-Registry-Auth": auth} if auth else None)
