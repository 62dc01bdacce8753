"""Values a template walks over, and how Go would name, test and print them.

Python stands in for Go so: str, bool, int, float, None (nil), Mapping (map with string keys),
Sequence (slice) and `Struct` for anything with named fields.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from decimal import Decimal
from typing import TypeAlias, TypeGuard

Value: TypeAlias = object
_ESCAPES = {"\a": "\\a", "\b": "\\b", "\f": "\\f", "\n": "\\n", "\r": "\\r", "\t": "\\t"}
_MORE_ESCAPES = {"\v": "\\v", "\\": "\\\\", '"': '\\"'}


@dataclass(frozen=True, slots=True)
class Method:
    """A method that takes arguments; as a field of a `Struct` it can be invoked."""

    function: Callable[..., Value]


@dataclass(frozen=True, slots=True)
class Struct:
    """A value with a fixed set of fields; `type_name` is how Go would print its type.

    A field that is callable is a method without arguments: it is called on use. `source` is
    the plain value behind it, for functions that want to encode the whole.
    """

    type_name: str
    fields: Mapping[str, Value] = field(default_factory=dict)
    source: Value = None

    def get(self, name: str) -> Value:
        """Field `name`, methods called; KeyError when there is none."""
        found = self.fields[name]
        return found() if callable(found) else found


@dataclass(frozen=True, slots=True)
class NilPointer:
    """A pointer to a struct that is nil: it has fields, but looking at one is an error."""

    type_name: str


def is_sequence(value: Value) -> TypeGuard[Sequence[Value]]:
    """True for what Go would call a slice or array (strings are not)."""
    return isinstance(value, Sequence) and not isinstance(value, str | bytes)


def type_name(value: Value) -> str:
    """The type as Go's %T prints it."""
    if isinstance(value, Struct | NilPointer):
        return value.type_name
    names: tuple[tuple[type | tuple[type, ...], str], ...] = (
        (bool, "bool"),
        (str, "string"),
        (int, "int"),
        (float, "float64"),
    )
    for kind, name in names:
        if isinstance(value, kind):
            return name
    if isinstance(value, Mapping):
        strings = bool(value) and all(isinstance(item, str) for item in value.values())
        return "map[string]string" if strings or not value else "map[string]interface {}"
    if is_sequence(value):
        return "[]interface {}"
    return "<nil>"


def truth(value: Value) -> bool:
    """What `if` sees: false, 0, nil and anything of length zero are false."""
    if isinstance(value, Struct | NilPointer):
        return isinstance(value, Struct)
    return bool(value)


def quote(text: str) -> str:
    """Go's %q: double quotes, escapes, other printable characters as they are."""
    out = []
    for char in text:
        code = ord(char)
        if char in _ESCAPES or char in _MORE_ESCAPES:
            out.append(_ESCAPES.get(char) or _MORE_ESCAPES[char])
        elif char.isprintable():
            out.append(char)
        elif code < 0x80:
            out.append(f"\\x{code:02x}")
        elif code < 0x10000:
            out.append(f"\\u{code:04x}")
        else:
            out.append(f"\\U{code:08x}")
    return '"' + "".join(out) + '"'


def number_text(value: float) -> str:
    """A float as Go's %v and %g print it: the fewest digits, an exponent from 1e6 on."""
    if value != value or value in (float("inf"), float("-inf")):
        return {float("inf"): "+Inf", float("-inf"): "-Inf"}.get(value, "NaN")
    sign, digits, exponent = Decimal(repr(value)).normalize().as_tuple()
    shown = "".join(map(str, digits)) or "0"
    point = len(shown) + int(exponent)
    if value == 0:
        return "-0" if sign else "0"
    if not -4 <= point - 1 < 6:
        tail = "." + shown[1:] if len(shown) > 1 else ""
        text = f"{shown[0]}{tail}e{'-' if point - 1 < 0 else '+'}{abs(point - 1):02d}"
    elif point <= 0:
        text = "0." + "0" * -point + shown
    elif point >= len(shown):
        text = shown + "0" * (point - len(shown))
    else:
        text = shown[:point] + "." + shown[point:]
    return ("-" if sign else "") + text


def show(value: Value, nil: str = "<nil>") -> str:
    """A value as Go's %v prints it."""
    if value is None:
        return nil
    if isinstance(value, NilPointer):
        return "<nil>"
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, float):
        return number_text(value)
    if isinstance(value, Struct):
        return "{" + " ".join(show(value.get(name)) for name in value.fields) + "}"
    if isinstance(value, Mapping):
        return "map[" + " ".join(f"{k}:{show(value[k])}" for k in sorted(value)) + "]"
    if isinstance(value, Sequence) and not isinstance(value, str | bytes):
        return "[" + " ".join(show(item) for item in value) + "]"
    return str(value)
