"""Values all objects share: times, durations, versions, annotations, enum words."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from datetime import UTC, datetime, timedelta
from functools import lru_cache
from typing import Any

from google.protobuf.duration_pb2 import Duration
from google.protobuf.internal.enum_type_wrapper import EnumTypeWrapper
from google.protobuf.timestamp_pb2 import Timestamp

from swarmd import api

Json = dict[str, Any]

# A Go time.Time nobody set; structs ignore omitempty, so it is printed.
ZERO_TIME = "0001-01-01T00:00:00Z"

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


@lru_cache(maxsize=4096)
def _second_text(seconds: int) -> str:
    # Not datetime.fromtimestamp: it refuses what a foreign manager may have stored.
    try:
        return (_EPOCH + timedelta(seconds=seconds)).strftime("%04Y-%m-%dT%H:%M:%S")
    except OverflowError:
        return ZERO_TIME[:-1]


def time_text(stamp: Timestamp) -> str:
    """RFC 3339 with up to nine digits, trailing zeros cut. Unset prints the epoch, as stock."""
    nanos = stamp.nanos
    text = _second_text(stamp.seconds)
    if nanos:
        return f"{text}.{nanos:09d}".rstrip("0") + "Z"
    return text + "Z"


def nanoseconds(duration: Duration) -> int:
    """A Duration as Go's integer nanoseconds."""
    return duration.seconds * 1_000_000_000 + duration.nanos


def duration(nanos: int) -> Duration:
    """Go's integer nanoseconds as a Duration; seconds and nanos carry the same sign."""
    whole, rest = divmod(abs(nanos), 1_000_000_000)
    sign = -1 if nanos < 0 else 1
    return Duration(seconds=sign * whole, nanos=sign * rest)


def version_json(version: api.Version) -> Json:
    """``{"Index": n}``, empty for 0."""
    index = version.index
    return {"Index": index} if index else {}


def sorted_map(values: Mapping[str, str]) -> dict[str, str]:
    """A string map with its keys in order, as Go prints maps."""
    return {key: values[key] for key in sorted(values)}


def put(target: Json, key: str, value: Any) -> None:
    """Set `key` unless `value` is empty: Go's omitempty."""
    if value:
        target[key] = value


def put_map(target: Json, key: str, values: Mapping[str, str]) -> None:
    """Set a string map unless it is empty."""
    if values:
        target[key] = sorted_map(values)


def start(obj: Any) -> Json:
    """The members every object begins with: ID, Version, CreatedAt, UpdatedAt."""
    meta = obj.meta
    return {
        "ID": obj.id,
        "Version": version_json(meta.version),
        "CreatedAt": time_text(meta.created_at),
        "UpdatedAt": time_text(meta.updated_at),
    }


def annotations_json(annotations: api.Annotations) -> Json:
    """Name unless empty, and Labels always: ``{}`` when there are none."""
    out: Json = {}
    name = annotations.name
    if name:
        out["Name"] = name
    labels = annotations.labels
    out["Labels"] = sorted_map(labels) if labels else {}
    return out


def driver_json(driver: api.Driver) -> Json:
    """Name and Options, each unless empty."""
    out: Json = {}
    put(out, "Name", driver.name)
    put_map(out, "Options", driver.options)
    return out


def words(enum: EnumTypeWrapper) -> Callable[[int], str]:
    """A function from an enum's number to its lower-case name (the number if unknown)."""
    table = {number: name.lower() for name, number in enum.items()}

    def word(number: int) -> str:
        return table.get(number) or str(number)

    return word


def numbers(enum: EnumTypeWrapper) -> dict[str, Any]:
    """An enum's numbers by lower-case name."""
    return {name.lower(): number for name, number in enum.items()}


def quoted(text: str) -> str:
    """Go's %q for ordinary text."""
    escaped = text.replace("\\", "\\\\").replace('"', '\\"')
    return '"' + escaped.replace("\n", "\\n").replace("\t", "\\t").replace("\r", "\\r") + '"'
