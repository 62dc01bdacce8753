"""The `filters` query value of list requests. Pure."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping

from swarmd.faces.http.refusal import bad_request


class Filters:
    """Names to wanted values. A name that was not given lets everything pass."""

    def __init__(self, values: Mapping[str, list[str]]) -> None:
        self._values = dict(values)

    def __contains__(self, name: str) -> bool:
        return name in self._values

    def get(self, name: str) -> list[str]:
        """The values wanted, possibly none."""
        return self._values.get(name, [])

    def exact(self, name: str, value: str) -> bool:
        """Whether `value` is one of those wanted."""
        return name not in self._values or value in self._values[name]

    def match(self, name: str, value: str) -> bool:
        """Whether a wanted pattern is found in `value`; what is no pattern is plain text."""
        return name not in self._values or any(
            _search(pattern, value) for pattern in self._values[name]
        )

    def labels(self, labels: Mapping[str, str]) -> bool:
        """Whether all wanted labels, KEY or KEY=VALUE, are there."""
        for wanted in self.get("label"):
            key, equals, value = wanted.partition("=")
            if key not in labels or (equals and labels[key] != value):
                return False
        return True


def parse_filters(text: str) -> Filters:
    """Read {"name": ["a"]} or the newer {"name": {"a": true}}. Raises a 400 `Refusal`."""
    if not text:
        return Filters({})
    try:
        found = json.loads(text)
    except ValueError as error:
        raise bad_request(f"invalid filters: {error}") from error
    if not isinstance(found, dict):
        raise bad_request("invalid filters: want an object")
    values: dict[str, list[str]] = {}
    for name, wanted in found.items():
        if isinstance(wanted, dict):
            wanted = [value for value, on in wanted.items() if on]
        if not isinstance(wanted, list) or not all(isinstance(item, str) for item in wanted):
            raise bad_request(f"invalid filter '{name}'")
        if wanted:
            values[name] = wanted
    return Filters(values)


def _search(pattern: str, value: str) -> bool:
    try:
        return re.search(pattern, value) is not None
    except re.error:
        return pattern in value
