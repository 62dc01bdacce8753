"""`swarmctl events`: what happens in the swarm, as it happens."""

from __future__ import annotations

from datetime import datetime, tzinfo
from typing import Any

from swarmctl.clock import wall_seconds
from swarmctl.command import Call, Command
from swarmctl.errors import CliError
from swarmctl.flags import Flag
from swarmctl.gotext import SECOND, local_stamp, parse_duration, parse_stamp, quote
from swarmctl.kinds import STRING
from swarmctl.options import INSPECT_FORMAT_HELP, filter_query, filtered, formatted
from swarmctl.output import FUNCTIONS, format_status
from swarmctl.shapes import EVENT, typed
from swarmd.base.gotemplate import Template, TemplateError


def _events(call: Call) -> None:
    form = call.given["format"]
    template = _template("{{json .}}" if form == "json" else form) if form else None
    entries = list(call.given["filter"])
    if not any(key == "scope" for key, _ in entries):
        entries.append(("scope", "swarm"))
    query = dict(filter_query(entries) or {})
    for name in ("since", "until"):
        if call.given[name]:
            query[name] = timestamp(call.given[name], wall_seconds())
    try:
        for event in call.client.get("/events", query).objects():
            call.out.write(_line(event, template) + "\n")
            call.out.flush()
    except KeyboardInterrupt:
        raise CliError(status=130) from None


def _template(form: str) -> Template:
    """Parsed, and tried on an empty event so that a wrong field is refused before waiting."""
    try:
        template = Template("", form, FUNCTIONS)
        template.run(typed({}, EVENT))
    except TemplateError as error:
        raise CliError(f"Error parsing format: {error}", format_status) from None
    return template


def _line(event: dict[str, Any], template: Template | None) -> str:
    if template is not None:
        try:
            return template.run(typed(event, EVENT))
        except TemplateError as error:
            raise CliError(str(error)) from None
    nanos = event.get("timeNano") or event.get("time", 0) * SECOND
    actor = event.get("Actor") or {}
    line = f"{event.get('Type', '')} {event.get('Action', '')} {actor.get('ID', '')}"
    attributes = actor.get("Attributes") or {}
    if attributes:
        line += " (" + ", ".join(f"{key}={attributes[key]}" for key in sorted(attributes)) + ")"
    return f"{local_stamp(nanos)} {line}" if nanos else line


def timestamp(text: str, now: float) -> str:
    """What the API takes for `--since`: of a duration ago, a date, or seconds."""
    try:
        if text != "0":
            return str(int(now - parse_duration(text) / SECOND))
    except ValueError:
        pass
    stamp = parse_stamp(text)
    if stamp is not None:
        return f"{int(stamp[0])}.{stamp[1]:09d}"
    whole, _, fraction = text.partition(".")
    if whole.isdigit() and (not fraction or fraction.isdigit()):
        return text
    try:
        moment = datetime.fromisoformat(text.replace("Z", "+00:00"))
    except ValueError:
        raise CliError(f"failed to parse value as time or duration: {quote(text)}") from None
    if moment.tzinfo is None:
        moment = moment.replace(tzinfo=_local())
    return f"{int(moment.timestamp())}.{moment.microsecond * 1000:09d}"


def _local() -> tzinfo | None:
    return datetime.fromtimestamp(wall_seconds()).astimezone().tzinfo


EVENTS = Command(
    "events",
    "[OPTIONS]",
    "Get real time events from the server",
    _events,
    flags=(
        filtered(),
        formatted(INSPECT_FORMAT_HELP),
        Flag("since", STRING, "Show all events created since timestamp", value=""),
        Flag("until", STRING, "Stream events until this timestamp", value=""),
    ),
)
