"""`node ps`: the tasks on nodes, with names looked up."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from swarmctl.clock import wall_seconds
from swarmctl.command import ANY, Call, Command
from swarmctl.commands.lookup import node_names, node_path, own_node, path_of
from swarmctl.connect import Client
from swarmctl.errors import CliError, joined
from swarmctl.flags import Flag
from swarmctl.gotext import parse_stamp
from swarmctl.human import capitalised, duration, ellipsis, natural_key, short_id
from swarmctl.kinds import BOOL
from swarmctl.options import filter_query, filtered, formatted, quiet
from swarmctl.output import Listing
from swarmd.base.gotemplate import Struct

Task = dict[str, Any]
error_columns_max = 30

_LISTING = Listing(
    {
        "ID": "ID",
        "Name": "NAME",
        "Image": "IMAGE",
        "Node": "NODE",
        "DesiredState": "DESIRED STATE",
        "CurrentState": "CURRENT STATE",
        "Error": "ERROR",
        "Ports": "PORTS",
    },
    "table {{.ID}}\\t{{.Name}}\\t{{.Image}}\\t{{.Node}}\\t{{.DesiredState}}\\t{{.CurrentState}}\\t"
    "{{.Error}}\\t{{.Ports}}",
    "id: {{.ID}}\\nname: {{.Name}}\\nimage: {{.Image}}\\nnode: {{.Node}}\\n"
    "desired_state: {{.DesiredState}}\\ncurrent_state: {{.CurrentState}}\\nerror: {{.Error}}\\n"
    "ports: {{.Ports}}\\n",
    "id: {{.ID}}",
)


class Names:
    """Names of services and nodes by id, asked for once each; the id where that fails."""

    def __init__(self, client: Client, resolve: bool) -> None:
        self._client = client
        self._resolve = resolve
        self._known: dict[str, str] = {}

    def service(self, id: str) -> str:
        """A service's name."""
        return self._find(id, self._ask_service)

    def node(self, id: str) -> str:
        """A node's name or hostname."""
        return self._find(id, self._ask_node)

    def _find(self, id: str, ask: Callable[[str], str]) -> str:
        if not self._resolve or not id:
            return id
        if id not in self._known:
            try:
                self._known[id] = ask(id) or id
            except CliError:
                self._known[id] = id
        return self._known[id]

    def _ask_service(self, id: str) -> str:
        query = {"insertDefaults": "false"}
        return str(self._client.get(path_of("service", id), query).json()["Spec"].get("Name", ""))

    def _ask_node(self, id: str) -> str:
        node = self._client.get(node_path(id)).json()
        return str(node["Spec"].get("Name") or node["Description"].get("Hostname", ""))


def _ps(call: Call) -> None:
    errors: list[CliError] = []
    tasks: list[Task] = []
    for reference in call.args or ["self"]:
        try:
            node = call.client.get(node_path(own_node(call.client, reference))).json()
            query = filter_query(call.given["filter"], node=node["ID"])
            tasks += call.client.get("/tasks", query).json()
        except CliError as error:
            errors.append(error)
    if tasks or not errors:
        names = Names(call.client, not call.given["no-resolve"])
        form = call.given["format"]
        rows = _rows(tasks, names, not call.given["no-trunc"], not form or form[:5] == "table")
        _LISTING.print(rows, form, call.given["quiet"], call.out)
    joined(errors)


def _rows(tasks: list[Task], names: Names, short: bool, table: bool) -> list[Struct]:
    named = [(_task_name(task, names), task) for task in tasks]
    # Newest first within a name, names in natural order.
    named.sort(key=lambda entry: entry[1].get("CreatedAt", ""), reverse=True)
    named.sort(key=lambda entry: natural_key(entry[0]))
    rows, before = [], ""
    now = wall_seconds()
    for name, task in named:
        shown = rf" \_ {name}" if table and name == before else name
        rows.append(_row(task, shown, names.node(task.get("NodeID", "")), short, now))
        before = name
    return rows


def _task_name(task: Task, names: Names) -> str:
    service = names.service(task.get("ServiceID", ""))
    return f"{service}.{task.get('Slot') or task.get('NodeID', '')}"


def _row(task: Task, name: str, node: str, short: bool, now: float) -> Struct:
    status = task.get("Status", {})
    error = status.get("Err", "")
    error = ellipsis(error, error_columns_max) if short else error
    image = task.get("Spec", {}).get("ContainerSpec", {}).get("Image", "")
    moment = parse_stamp(status.get("Timestamp", ""))
    age = (now - moment[0]) * 1e9 - moment[1] if moment else 0
    ports = (status.get("PortStatus") or {}).get("Ports") or []
    return Struct(
        "*task.taskContext",
        {
            "ID": short_id(task["ID"]) if short else task["ID"],
            "Name": name,
            "Image": _familiar(image) if short else image,
            "Node": node,
            "DesiredState": capitalised(task.get("DesiredState", "")),
            "CurrentState": f"{capitalised(status.get('State', ''))} "
            f"{duration(int(age)).lower()} ago",
            "Error": f'"{error}"' if error else "",
            "Ports": ",".join(
                f"*:{port.get('PublishedPort', 0)}->{port.get('TargetPort', 0)}"
                f"/{port.get('Protocol', '')}"
                for port in ports
            ),
        },
    )


def _familiar(image: str) -> str:
    """An image with a tag, without its digest and the default registry."""
    name, at, _ = image.partition("@")
    tagged = ":" in name.rpartition("/")[2]
    if not at or not tagged:
        return image
    return name.removeprefix("docker.io/").removeprefix("library/")


PS = Command(
    "ps",
    "[OPTIONS] [NODE...]",
    "List tasks running on one or more nodes, defaults to current node",
    _ps,
    flags=(
        filtered(),
        formatted("Pretty-print tasks using a Go template"),
        Flag("no-resolve", BOOL, "Do not map IDs to Names", value=False),
        Flag("no-trunc", BOOL, "Do not truncate output", value=False),
        quiet("Only display task IDs"),
    ),
    arity=ANY,
    complete=node_names,
)
