"""Flags that several commands share, and what they do to a swarm's spec."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from typing import Any

from swarmctl.errors import CliError
from swarmctl.flags import Flag, Given
from swarmctl.gotext import SECOND, quote
from swarmctl.kinds import (
    BOOL,
    DURATION,
    EXTERNAL_CA,
    FILTER,
    INT,
    NODE_ADDR,
    STRING,
    UINT,
)

FORMAT_HELP = (
    "Format output using a custom template:\n"
    "'table':            Print output in table format with column headers (default)\n"
    "'table TEMPLATE':   Print output in table format using the given Go template\n"
    "'json':             Print in JSON format\n"
    "'TEMPLATE':         Print output using the given Go template"
)
INSPECT_FORMAT_HELP = (
    "Format output using a custom template:\n'json':             Print in JSON format\n"
    "'TEMPLATE':         Print output using the given Go template"
)
AVAILABILITIES = ("active", "pause", "drain")
LISTEN_DEFAULT = "0.0.0.0:2377"


def quiet(text: str) -> Flag:
    """-q."""
    return Flag("quiet", BOOL, text, short="q", value=False)


def formatted(text: str = FORMAT_HELP, short: str = "") -> Flag:
    """--format."""
    return Flag("format", STRING, text, short=short, value="")


def filtered(text: str = "Filter output based on conditions provided") -> Flag:
    """-f, --filter."""
    return Flag("filter", FILTER, text, short="f")


def availability(default: str) -> Flag:
    """--availability."""
    text = 'Availability of the node ("active", "pause", "drain")'
    return Flag(
        "availability", STRING, text, default=default, value=default, choices=AVAILABILITIES
    )


def addresses() -> tuple[Flag, ...]:
    """Where a node listens and how it presents itself."""
    form = '(format: "<ip|interface>[:port]")'
    return (
        Flag("advertise-addr", STRING, f"Advertised address {form}", value=""),
        Flag(
            "data-path-addr",
            STRING,
            'Address or interface to use for data path traffic (format: "<ip|interface>")',
            value="",
        ),
        Flag(
            "listen-addr",
            NODE_ADDR,
            f"Listen address {form}",
            default=LISTEN_DEFAULT,
            value=LISTEN_DEFAULT,
        ),
    )


CA_FLAGS = (
    Flag(
        "cert-expiry",
        DURATION,
        "Validity period for node certificates (ns|us|ms|s|m|h)",
        default="2160h0m0s",
        value=2160 * 3600 * SECOND,
    ),
    Flag("external-ca", EXTERNAL_CA, "Specifications of one or more certificate signing endpoints"),
)
SPEC_FLAGS = (
    *CA_FLAGS,
    Flag(
        "dispatcher-heartbeat",
        DURATION,
        "Dispatcher heartbeat period (ns|us|ms|s|m|h)",
        default="5s",
        value=5 * SECOND,
    ),
    Flag("max-snapshots", UINT, "Number of additional Raft snapshots to retain", value=0),
    Flag(
        "snapshot-interval",
        UINT,
        "Number of log entries between Raft snapshots",
        default="10000",
        value=10000,
    ),
    Flag("task-history-limit", INT, "Task history retention limit", default="5", value=5),
)


def merge_spec(spec: dict[str, Any], given: Given, ca_cert: str | None) -> None:
    """Put what the user changed into a swarm's spec; in place, the rest stays."""
    changes = (
        ("task-history-limit", "Orchestration", "TaskHistoryRetentionLimit"),
        ("dispatcher-heartbeat", "Dispatcher", "HeartbeatPeriod"),
        ("max-snapshots", "Raft", "KeepOldSnapshots"),
        ("snapshot-interval", "Raft", "SnapshotInterval"),
        ("autolock", "EncryptionConfig", "AutoLockManagers"),
    )
    for flag, section, field in changes:
        if flag in given.changed:
            spec.setdefault(section, {})[field] = given[flag]
    merge_ca(spec, given, ca_cert)


def merge_ca(spec: dict[str, Any], given: Given, ca_cert: str | None) -> None:
    """Put the CA flags into a swarm's spec. External CAs without a certificate get `ca_cert`."""
    config = spec.setdefault("CAConfig", {})
    if "cert-expiry" in given.changed:
        config["NodeCertExpiry"] = given["cert-expiry"]
    if "external-ca" in given.changed:
        config["ExternalCAs"] = [
            {**entry, "CACert": entry["CACert"] or ca_cert or ""} for entry in given["external-ca"]
        ]


def node_availability(given: Given) -> str:
    """The availability asked for at init and join; empty when not given."""
    if "availability" not in given.changed:
        return ""
    wanted = str(given["availability"]).lower()
    if wanted not in AVAILABILITIES:
        raise CliError(
            f"invalid availability {quote(given['availability'])}, "
            "only active, pause and drain are supported"
        )
    return wanted


def filter_query(entries: Iterable[tuple[str, str]], **more: str) -> Mapping[str, str] | None:
    """The `filters` parameter of a list call, or no query at all."""
    found: dict[str, dict[str, bool]] = {}
    for key, value in (*entries, *more.items()):
        found.setdefault(key, {})[value] = True
    if not found:
        return None
    ordered = {key: dict(sorted(found[key].items())) for key in sorted(found)}
    return {"filters": json.dumps(ordered, separators=(",", ":"), ensure_ascii=False)}
