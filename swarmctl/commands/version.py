"""`swarmctl version`: of this program and of the daemon it talks to."""

from __future__ import annotations

import platform
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

from swarmctl import __version__, shapes
from swarmctl.command import Call, Command
from swarmctl.connect import DEFAULT_API_VERSION, Client
from swarmctl.errors import CliError
from swarmctl.gotext import parse_stamp
from swarmctl.options import INSPECT_FORMAT_HELP, formatted
from swarmctl.output import format_status, parse, print_typed
from swarmctl.tabs import align

_ARCHITECTURES = {"x86_64": "amd64", "aarch64": "arm64", "armv7l": "arm", "i686": "386"}
_ENGINE_LINES = (
    ("Go version", "GoVersion"),
    ("Git commit", "GitCommit"),
    ("Built", "BuildTime"),
)


def _client_info(client: Client) -> dict[str, Any]:
    try:
        spoken = client.api_version
    except CliError:
        spoken = DEFAULT_API_VERSION
    machine = platform.machine()
    return {
        "Version": __version__,
        "ApiVersion": spoken,
        "DefaultAPIVersion": DEFAULT_API_VERSION,
        "PythonVersion": platform.python_version(),
        "Os": platform.system().lower(),
        "Arch": _ARCHITECTURES.get(machine, machine),
        "Context": "default",
    }


def _server_info(client: Client) -> dict[str, Any]:
    """The daemon's version with an Engine component, also where it lists none."""
    server: dict[str, Any] = client.get("/version").json()
    components = server.setdefault("Components", None) or []
    if not any(component.get("Name") == "Engine" for component in components):
        keys = ("ApiVersion", "MinAPIVersion", "GitCommit", "GoVersion", "Os", "Arch", "BuildTime")
        details = {key: str(server.get(key, "")) for key in keys}
        details["Experimental"] = str(bool(server.get("Experimental"))).lower()
        components = [
            *components,
            {"Name": "Engine", "Version": server.get("Version", ""), "Details": details},
        ]
    for component in components:
        built = (component.get("Details") or {}).get("BuildTime")
        if component.get("Name") == "Engine" and built:
            component["Details"]["BuildTime"] = _built(built)
    server["Components"] = components
    return server


def _version(call: Call) -> None:
    form = call.given["format"]
    template = None
    if form:
        try:
            template = parse("{{json .}}" if form == "json" else form, name="version")
        except CliError as error:
            raise CliError(error.message, format_status) from None
    client = _client_info(call.client)
    server, trouble = None, None
    try:
        server = _server_info(call.client)
    except CliError as error:
        trouble = error
    if template is not None:
        shown = shapes.typed({"Client": client, "Server": server}, shapes.VERSION)
        try:
            print_typed(template, shown, call.out)
        except CliError as error:
            raise trouble or error from None
    else:
        lines = _client_lines(client) + (_server_lines(server) if server else [])
        call.say(align("\n".join(lines), cell_min=20, padding=1))
    if trouble is not None:
        raise trouble


def _client_lines(client: Mapping[str, Any]) -> list[str]:
    spoken, own = client["ApiVersion"], client["DefaultAPIVersion"]
    older = f" (downgraded from {own})" if spoken != own else ""
    return [
        "Client:",
        f" Version:\t{client['Version']}",
        f" API version:\t{spoken}{older}",
        f" Python version:\t{client['PythonVersion']}",
        f" OS/Arch:\t{client['Os']}/{client['Arch']}",
        f" Context:\t{client['Context']}",
    ]


def _server_lines(server: Mapping[str, Any]) -> list[str]:
    name = (server.get("Platform") or {}).get("Name", "")
    lines = ["", f"Server: {name}".rstrip()]
    for component in server["Components"]:
        details = component.get("Details") or {}
        lines.append(f" {component.get('Name', '')}:")
        lines.append(f"  Version:\t{component.get('Version', '')}")
        if component.get("Name") != "Engine":
            lines += [f"  {key}:\t{details[key]}" for key in sorted(details)]
            continue
        lowest = details.get("MinAPIVersion", "")
        lines.append(f"  API version:\t{details.get('ApiVersion', '')} (minimum version {lowest})")
        for title, key in _ENGINE_LINES:
            lines.append(f"  {title}:\t{details.get(key, '')}")
        lines.append(f"  OS/Arch:\t{details.get('Os', '')}/{details.get('Arch', '')}")
        lines.append(f"  Experimental:\t{details.get('Experimental', '')}")
    return lines


def _built(text: str) -> str:
    """A build time in the long form, other texts as they are."""
    moment = parse_stamp(text)
    if moment is None:
        return text
    built = datetime.fromtimestamp(moment[0], UTC)
    return f"{built:%a %b} {built.day:2d} {built:%H:%M:%S %Y}"


VERSION = Command(
    "version",
    "[OPTIONS]",
    "Show the version information",
    _version,
    flags=(formatted(INSPECT_FORMAT_HELP, "f"),),
)
