"""Durations and sizes as Docker words them. Pure."""

from __future__ import annotations

from typing import Any

from swarmd.faces.classic.engines.picture import parse_time

_UNITS = ("B", "KiB", "MiB", "GiB", "TiB", "PiB", "EiB", "ZiB", "YiB")


def bytes_size(size: float) -> str:
    """Four digits and a binary unit: 1.953GiB."""
    unit = 0
    while size >= 1024 and unit < len(_UNITS) - 1:
        size /= 1024
        unit += 1
    return f"{size:.4g}{_UNITS[unit]}"


def duration(seconds: float) -> str:
    """About how long: "3 minutes", "About an hour", "2 weeks"."""
    whole = int(seconds)
    minutes = whole // 60
    hours = int(seconds / 3600 + 0.5)
    if whole < 1:
        return "Less than a second"
    if whole < 60:
        return "1 second" if whole == 1 else f"{whole} seconds"
    if minutes < 60:
        return "About a minute" if minutes == 1 else f"{minutes} minutes"
    if hours < 48:
        return "About an hour" if hours == 1 else f"{hours} hours"
    for limit, size, word in (
        (24 * 7 * 2, 24, "days"),
        (24 * 30 * 2, 24 * 7, "weeks"),
        (24 * 365 * 2, 24 * 30, "months"),
    ):
        if hours < limit:
            return f"{hours // size} {word}"
    return f"{whole // 3600 // 24 // 365} years"


def state_word(state: dict[str, Any]) -> str:
    """A container's state in one word, from its inspection."""
    if state.get("Running"):
        if state.get("Paused"):
            return "paused"
        return "restarting" if state.get("Restarting") else "running"
    if state.get("Dead"):
        return "dead"
    return "exited" if parse_time(str(state.get("StartedAt") or "")) else "created"


def state_text(state: dict[str, Any], now: float) -> str:
    """A container's STATUS column: "Up 2 minutes", "Exited (0) 3 hours ago"."""
    started = parse_time(str(state.get("StartedAt") or ""))
    finished = parse_time(str(state.get("FinishedAt") or ""))
    code = state.get("ExitCode", 0)
    match state_word(state):
        case "paused":
            return f"Up {duration(now - started)} (Paused)"
        case "restarting":
            return f"Restarting ({code}) {duration(now - finished)} ago"
        case "running":
            health = _health(state)
            return f"Up {duration(now - started)}" + (f" ({health})" if health else "")
        case "dead":
            return "Dead"
        case "created":
            return "Created"
    return f"Exited ({code}) {duration(now - finished)} ago" if finished else ""


def health_word(state: dict[str, Any]) -> str:
    """healthy, unhealthy, starting or none."""
    return str((state.get("Health") or {}).get("Status") or "none")


def _health(state: dict[str, Any]) -> str:
    if not state.get("Health"):
        return ""
    word = health_word(state)
    return "health: starting" if word == "starting" else word
