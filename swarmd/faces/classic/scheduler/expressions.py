"""Affinity and constraint expressions: KEY==VALUE or KEY!=VALUE; globs, /patterns/, ~soft."""

from __future__ import annotations

import re
import warnings
from collections.abc import Iterable
from dataclasses import dataclass

from swarmd.faces.classic.scheduler.errors import BadExpression

OPERATORS = ("==", "!=")
_KEY = re.compile(r"[a-z_][a-z0-9\-_.]+", re.I | re.A)
_VALUE = re.compile(r"[=!/]?(~)?[a-z0-9:\-_\s.*/()?+\[\]\\^$|]+", re.I | re.A)
# A pattern is matched against labels and names only; long ones could only be made to hurt.
value_characters_max = 1024


@dataclass(frozen=True, slots=True)
class Expression:
    """One condition. A soft one is given up when nothing satisfies it."""

    key: str
    operator: str
    value: str
    soft: bool = False

    def __str__(self) -> str:
        return f"{self.key}{self.operator}{self.value}"

    def matches(self, *candidates: str) -> bool:
        """Whether the condition holds where any of `candidates` is what it talks about.

        A pattern that is no regular expression matches nothing (so "!=" holds).
        """
        hit = _any_match(self.value, candidates)
        return hit if self.operator == "==" else not hit


def parse(texts: Iterable[str]) -> list[Expression]:
    """Read expressions. Raises `BadExpression` in the reference's words."""
    return [_parse_one(text) for text in texts]


def _parse_one(text: str) -> Expression:
    for operator in OPERATORS:
        key, found, value = text.partition(operator)
        if not found:
            continue
        if not _KEY.fullmatch(key):
            raise BadExpression(f"Key '{key}' is invalid")
        if len(value) > value_characters_max or not _VALUE.fullmatch(value):
            raise BadExpression(f"Value '{value}' is invalid")
        bare = value.lstrip("~")
        return Expression(key, operator, bare, value.startswith("~"))
    raise BadExpression("One of operator ==, != is expected")


def _any_match(value: str, candidates: Iterable[str]) -> bool:
    if len(value) > 1 and value.startswith("/") and value.endswith("/"):
        pattern = value[1:-1]
    else:
        pattern = "^" + value.replace("*", ".*") + r"\Z"
    try:
        with warnings.catch_warnings():
            # Python thinks aloud about sets in sets; it means nothing to who runs the daemon.
            warnings.simplefilter("ignore", FutureWarning)
            compiled = re.compile(pattern)
    except (re.error, OverflowError):
        return False
    return any(compiled.search(candidate) for candidate in candidates)
