"""Expand the templates a container spec may hold, with the values of one task (BEHAVIOUR 3.8).

The manager does it with made-up values, to refuse at creation what would fail on the node.
"""

from __future__ import annotations

from collections.abc import Callable, MutableMapping

from swarmd import api
from swarmd.base.errors import InvalidArgument
from swarmd.base.gotemplate import Struct, Template, TemplateError
from swarmd.base.gotemplate.errors import CallTrouble
from swarmd.base.gotemplate.values import quote, type_name
from swarmd.cluster.model.names import task_name

Expand = Callable[[str], str]
_SERVICE = "struct { ID string; Name string; Labels map[string]string }"
_NODE = "struct { ID string; Hostname string; Platform template.Platform }"
_TASK = "struct { ID string; Name string; Slot string }"


class ExpandError(Exception):
    """A template failed; the text names the field it stands in."""


def context(node: api.NodeDescription, task: api.Task) -> Struct:
    """The values a template sees, under the names users know."""
    slot = str(task.slot) if task.slot else task.node_id
    platform = {"Architecture": node.platform.architecture, "OS": node.platform.os}
    service = {
        "ID": task.service_id,
        "Name": task.service_annotations.name,
        "Labels": dict(task.service_annotations.labels),
    }
    return Struct(
        "*template.Context",
        {
            "Service": Struct(_SERVICE, service),
            "Node": Struct(
                _NODE,
                {
                    "ID": task.node_id,
                    "Hostname": node.hostname,
                    "Platform": Struct("template.Platform", platform),
                },
            ),
            "Task": Struct(_TASK, {"ID": task.id, "Name": task_name(task), "Slot": slot}),
        },
    )


def _join(*words: object) -> str:
    """The one extra function: `join <separator> <word>...`."""
    for word in words:
        if not isinstance(word, str):
            raise CallTrouble(f"wrong type for value; expected string; got {type_name(word)}")
    separator, *rest = (str(word) for word in words)
    return separator.join(rest)


def expander(values: Struct) -> Expand:
    """A function that expands one text over `values`. It raises ExpandError."""

    def expand(text: str) -> str:
        if "{{" not in text:
            return text
        try:
            template = Template("expansion", text, {"join": _join}, missing_key_error=True)
            return template.run(values)
        except TemplateError as error:
            raise ExpandError(str(error)) from None

    return expand


def expand_container(
    node: api.NodeDescription, task: api.Task, spec: api.ContainerSpec
) -> api.ContainerSpec:
    """A copy of `spec` with environment, mounts and hostname expanded. Raises ExpandError."""
    expanded = api.ContainerSpec()
    expanded.CopyFrom(spec)
    expand = expander(context(node, task))
    with _Inside("expanding env failed"):
        for number, entry in enumerate(expanded.env):
            expanded.env[number] = _env(expand, entry)
    with _Inside("expanding mounts failed"):
        for mount in expanded.mounts:
            _mount(expand, mount)
    with _Inside("expanding hostname failed"):
        expanded.hostname = expand(expanded.hostname)
    return expanded


class _Inside:
    """Put `prefix: ` before the text of an ExpandError."""

    def __init__(self, prefix: str) -> None:
        self._prefix = prefix

    def __enter__(self) -> None:
        return None

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        if isinstance(error, ExpandError):
            raise ExpandError(f"{self._prefix}: {error}") from None


def _env(expand: Expand, entry: str) -> str:
    name, equals, value = entry.partition("=")
    if not equals:
        return entry
    with _Inside(f"expanding env {quote(entry)}"):
        return f"{name}={expand(value)}"


def _mount(expand: Expand, mount: api.Mount) -> None:
    with _Inside(f"expanding mount source {quote(mount.source)}"):
        mount.source = expand(mount.source)
    with _Inside(f"expanding mount target {quote(mount.target)}"):
        mount.target = expand(mount.target)
    if mount.HasField("volume_options"):
        options = mount.volume_options
        with _Inside("expanding volume labels"):
            _map(expand, options.labels)
        if options.HasField("driver_config"):
            with _Inside("expanding volume driver config"):
                _map(expand, options.driver_config.options)


def _map(expand: Expand, values: MutableMapping[str, str]) -> None:
    for key in sorted(values):
        with _Inside(f"expanding map entry {quote(key)}={quote(values[key])}"):
            values[key] = expand(values[key])


def expand_for_validation(spec: api.TaskSpec) -> api.ContainerSpec:
    """Expand with made-up values; what fails is refused as InvalidArgument."""
    node = api.NodeDescription(
        hostname="nodeHostname", platform=api.Platform(os="os", architecture="architecture")
    )
    task = api.Task(
        service_id="serviceid",
        slot=1,
        node_id="nodeid",
        annotations=api.Annotations(name="taskname"),
        service_annotations=api.Annotations(name="servicename"),
    )
    try:
        return expand_container(node, task, spec.container)
    except ExpandError as error:
        raise InvalidArgument(str(error)) from None
