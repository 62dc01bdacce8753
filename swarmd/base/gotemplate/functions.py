"""The functions every Go template has: comparison, logic, printing, indexing, escaping."""

from __future__ import annotations

import html
import re
from collections.abc import Callable, Mapping, Sequence
from typing import TypeAlias
from urllib.parse import quote as url_quote

from .errors import CallTrouble
from .values import NilPointer, Value, is_sequence, number_text, quote, show, truth, type_name

TemplateFunction: TypeAlias = Callable[..., Value]
width_max = 10_000  # a printf width beyond this is refused; it only serves to eat memory


def _basic(value: Value) -> str:
    if isinstance(value, bool):
        return "bool"
    if isinstance(value, int):
        return "int"
    if isinstance(value, float):
        return "float"
    if isinstance(value, str):
        return "string"
    raise CallTrouble("incompatible types for comparison")


def _equal(left: Value, *others: Value) -> bool:
    if not others:
        raise CallTrouble("missing argument for comparison")
    for other in others:
        nothing = [item is None or isinstance(item, NilPointer) for item in (left, other)]
        if any(nothing):
            if all(nothing):
                return True
            continue
        if _basic(left) != _basic(other):
            raise CallTrouble("incompatible types for comparison")
        if left == other:
            return True
    return False


def _less(left: Value, right: Value) -> bool:
    kind = _basic(left)
    if kind != _basic(right):
        raise CallTrouble("incompatible types for comparison")
    if kind == "bool":
        raise CallTrouble("invalid type for comparison")
    if isinstance(left, str) and isinstance(right, str):
        return left.encode() < right.encode()
    return isinstance(left, int | float) and isinstance(right, int | float) and left < right


def _length(value: Value) -> int:
    if isinstance(value, str):
        return len(value.encode())
    if isinstance(value, Mapping) or is_sequence(value):
        return len(value)
    if value is None or isinstance(value, NilPointer):
        raise CallTrouble("len of nil pointer")
    raise CallTrouble(f"len of type {type_name(value)}")


def _index(value: Value, *keys: Value) -> Value:
    for key in keys:
        if isinstance(value, Mapping):
            if not isinstance(key, str):
                raise CallTrouble(f"value has type {type_name(key)}; should be string")
            default = "" if type_name(value) == "map[string]string" else None
            value = value.get(key, default)
        elif isinstance(value, Sequence):
            if isinstance(key, bool) or not isinstance(key, int):
                raise CallTrouble(f"cannot index slice/array with type {type_name(key)}")
            if not 0 <= key < len(value):
                raise CallTrouble(f"index out of range: {key}")
            value = value.encode()[key] if isinstance(value, str) else value[key]
        elif value is None:
            raise CallTrouble("index of untyped nil")
        else:
            raise CallTrouble(f"can't index item of type {type_name(value)}")
    return value


def _slice(value: Value, *places: Value) -> Value:
    if len(places) > 3:
        raise CallTrouble(f"too many slice indexes: {len(places)}")
    if not isinstance(value, Sequence):
        raise CallTrouble(f"can't slice item of type {type_name(value)}")
    numbers = [0, len(value)]
    for number, place in enumerate(places[:2]):
        if isinstance(place, bool) or not isinstance(place, int):
            raise CallTrouble(f"cannot index slice/array with type {type_name(place)}")
        if not 0 <= place <= len(value):
            raise CallTrouble(f"index out of range: {place}")
        numbers[number] = place
    if numbers[0] > numbers[1]:
        raise CallTrouble(f"invalid slice index: {numbers[0]} > {numbers[1]}")
    return value[numbers[0] : numbers[1]]


def _print(*values: Value) -> str:
    out = ""
    for number, value in enumerate(values):
        before = values[number - 1] if number else None
        if number and not isinstance(value, str) and not isinstance(before, str):
            out += " "
        out += show(value)
    return out


def _println(*values: Value) -> str:
    return " ".join(show(value) for value in values) + "\n"


_VERB = re.compile(
    r"%(?P<flags>[-+# 0]*)(?P<width>\d*)(?:\.(?P<precision>\d*))?(?P<verb>.|$)", re.S
)


def _printf(form: Value, *values: Value) -> str:
    if not isinstance(form, str):
        raise CallTrouble(f"wrong type for value; expected string; got {type_name(form)}")
    left = list(values)

    def one(found: re.Match[str]) -> str:
        verb = found["verb"]
        if verb == "%":
            return "%"
        if not verb:
            return "%!(NOVERB)"
        if not left:
            return f"%!{verb}(MISSING)"
        return _verb(found, verb, left.pop(0))

    text = _VERB.sub(one, form)
    if left:
        extra = ", ".join(f"{type_name(value)}={show(value)}" for value in left)
        text += f"%!(EXTRA {extra})"
    return text


def _verb(found: re.Match[str], verb: str, value: Value) -> str:
    text = _formatted(found, verb, value)
    if text is None:
        return f"%!{verb}({type_name(value)}={show(value)})"
    width = int(found["width"] or 0)
    if width > width_max:
        raise CallTrouble(f"width {width} is too large")
    if "-" in found["flags"]:
        return text.ljust(width)
    if "0" in found["flags"] and isinstance(value, int | float):
        return text.zfill(width)
    return text.rjust(width)


def _formatted(found: re.Match[str], verb: str, value: Value) -> str | None:
    precision = found["precision"]
    if verb in "vsq" and isinstance(value, str):
        cut = value if precision is None else value[: int(precision or 0)]
        return quote(cut) if verb == "q" else cut
    if verb == "v" or (verb == "s" and not isinstance(value, int | float | None)):
        return quote(value) if "#" in found["flags"] and isinstance(value, str) else show(value)
    if verb == "T":
        return type_name(value)
    if verb == "t" and isinstance(value, bool):
        return show(value)
    if isinstance(value, bool):
        return None
    if isinstance(value, int) and verb in "dxXobc":
        sign = "+" if "+" in found["flags"] and value >= 0 else ""
        return sign + (chr(value) if verb == "c" else format(value, verb))
    if isinstance(value, float) and verb in "feEgG":
        if verb in "gG" and precision is None:
            return number_text(value)
        return format(value, f".{min(int(precision or 6), width_max)}{verb}")
    if isinstance(value, str) and verb in "xX":
        return value.encode().hex() if verb == "x" else value.encode().hex().upper()
    return None


_JS = {"\\": "\\\\", "'": "\\'", '"': '\\"', "<": "\\u003C", ">": "\\u003E"}
_JS |= {"&": "\\u0026", "=": "\\u003D", "\n": "\\u000A", "\r": "\\u000D", "\t": "\\u0009"}


def _html(*values: Value) -> str:
    return html.escape(_print(*values)).replace("&#x27;", "&#39;").replace("&quot;", "&#34;")


def _js(*values: Value) -> str:
    return "".join(_JS.get(char, char) for char in _print(*values))


def _urlquery(*values: Value) -> str:
    return url_quote(_print(*values), safe="-_.~").replace("%20", "+")


def _call(*values: Value) -> Value:
    first = values[0] if values else None
    raise CallTrouble(f"non-function {show(first)} of type {type_name(first)}")


def _and(*values: Value) -> Value:
    return next((value for value in values if not truth(value)), values[-1])


def _or(*values: Value) -> Value:
    return next((value for value in values if truth(value)), values[-1])


BUILTINS: Mapping[str, TemplateFunction] = {
    "and": _and,
    "or": _or,
    "not": lambda value: not truth(value),
    "eq": _equal,
    "ne": lambda left, right: not _equal(left, right),
    "lt": _less,
    "le": lambda left, right: _less(left, right) or _equal(left, right),
    "gt": lambda left, right: not (_less(left, right) or _equal(left, right)),
    "ge": lambda left, right: not _less(left, right),
    "len": _length,
    "index": _index,
    "slice": _slice,
    "print": _print,
    "println": _println,
    "printf": _printf,
    "html": _html,
    "js": _js,
    "urlquery": _urlquery,
    "call": _call,
}
