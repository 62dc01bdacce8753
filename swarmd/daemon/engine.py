"""The Docker Engine on this host, if there is one: where it is, and what it says of itself."""

from __future__ import annotations

import logging
import os
import stat

from swarmd import api
from swarmd.faces.engineapi.engine import EngineLink
from swarmd.faces.engineapi.errors import Refusal

log = logging.getLogger(__name__)

USUAL_SOCKET = "/var/run/docker.sock"
# The engine names its plugin lists; the wire has one list of (type, name).
_TYPES = ("Log", "Network", "Volume", "Authorization")


def find_engine(choice: str) -> str | None:
    """Path of the engine's socket for the option `--engine`; None without one."""
    if choice == "none":
        return None
    if choice != "auto":
        return choice.removeprefix("unix://")
    try:
        found = stat.S_ISSOCK(os.stat(USUAL_SOCKET).st_mode)
    except OSError:
        return None
    return USUAL_SOCKET if found else None


class LocalEngine:
    """Describes the engine for the node's description (`worker.agent.LocalEngine`)."""

    def __init__(self, path: str) -> None:
        self._link = EngineLink(path)

    async def describe(self) -> api.EngineDescription | None:
        """Version, labels and plugins; None while the engine does not answer."""
        try:
            info = await self._link.get_json("/info")
        except Refusal as error:
            log.debug("the engine does not answer: %s", error)
            return None
        found = api.EngineDescription(engine_version=str(info.get("ServerVersion", "")))
        for label in info.get("Labels") or []:
            name, _, value = str(label).partition("=")
            found.labels[name] = value
        plugins = info.get("Plugins") or {}
        for kind in _TYPES:
            for name in plugins.get(kind) or []:
                found.plugins.add(type=kind, name=str(name))
        return found
