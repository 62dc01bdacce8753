"""Reading request JSON the way Go's decoder does.

Names match exactly first, then without regard to case; unknown members are ignored; null
means absent; a member of the wrong type is refused with Go's wording.
"""

from __future__ import annotations

from swarmd.faces.engineapi.errors import Refusal


class WrongType(Refusal):
    """A JSON value of another type than its place wants: 400."""

    def __init__(self, message: str) -> None:
        super().__init__(400, message)


def kind_of(value: object) -> str:
    """Go's word for a JSON value's kind."""
    if isinstance(value, bool):
        return "bool"
    if isinstance(value, (int, float)):
        return "number"
    if isinstance(value, str):
        return "string"
    if isinstance(value, list):
        return "array"
    return "object"


class Fields:
    """One JSON object of a request, read member by member."""

    __slots__ = ("_folded", "_raw", "path")

    def __init__(self, raw: object, path: str) -> None:
        if raw is None:
            raw = {}
        if not isinstance(raw, dict):
            raise WrongType(f"json: cannot unmarshal {kind_of(raw)} into Go value of type {path}")
        self._raw: dict[str, object] = raw
        self._folded: dict[str, object] | None = None
        self.path = path

    def get(self, name: str) -> object:
        """The member's value as decoded, None when absent."""
        raw = self._raw
        if name in raw:
            return raw[name]
        if self._folded is None:
            self._folded = {key.lower(): value for key, value in raw.items()}
        return self._folded.get(name.lower())

    def _wrong(self, name: str, value: object, wanted: str) -> Exception:
        return WrongType(
            f"json: cannot unmarshal {kind_of(value)} into Go struct field "
            f"{self.path}.{name} of type {wanted}"
        )

    def text(self, name: str) -> str:
        """A string; absent is empty."""
        value = self.get(name)
        if value is None:
            return ""
        if not isinstance(value, str):
            raise self._wrong(name, value, "string")
        return value

    def flag(self, name: str) -> bool:
        """A boolean; absent is false."""
        return self.maybe_flag(name) is True

    def maybe_flag(self, name: str) -> bool | None:
        """A boolean, or None when absent."""
        value = self.get(name)
        if value is None or isinstance(value, bool):
            return value
        raise self._wrong(name, value, "bool")

    def number(self, name: str, kind: str = "int64") -> int:
        """An integer within Go's `kind`; absent is 0."""
        return self.maybe_number(name, kind) or 0

    def maybe_number(self, name: str, kind: str = "int64") -> int | None:
        """An integer within Go's `kind`, or None when absent."""
        value = self.get(name)
        if value is None:
            return None
        if isinstance(value, bool) or not isinstance(value, (int, float)):
            raise self._wrong(name, value, kind)
        low, high = _RANGES[kind]
        if isinstance(value, float) or not low <= value <= high:
            raise WrongType(
                f"json: cannot unmarshal number {value} into Go struct field "
                f"{self.path}.{name} of type {kind}"
            )
        return value

    def real(self, name: str) -> float:
        """A floating point number; absent is 0."""
        value = self.get(name)
        if value is None:
            return 0.0
        if isinstance(value, bool) or not isinstance(value, (int, float)):
            raise self._wrong(name, value, "float32")
        return float(value)

    def strings(self, name: str) -> list[str] | None:
        """A list of strings, or None when absent."""
        value = self.get(name)
        if value is None:
            return None
        if not isinstance(value, list):
            raise self._wrong(name, value, "[]string")
        for item in value:
            if not isinstance(item, str):
                raise self._wrong(name, item, "string")
        return value

    def mapping(self, name: str) -> dict[str, str]:
        """A map of strings; absent is empty."""
        value = self.get(name)
        if value is None:
            return {}
        if not isinstance(value, dict):
            raise self._wrong(name, value, "map[string]string")
        for key, item in value.items():
            if item is None:
                value = {**value, key: ""}
            elif not isinstance(item, str):
                raise self._wrong(name, item, "string")
        return value

    def child(self, name: str) -> Fields:
        """A nested object; absent is one without members."""
        return self.maybe_child(name) or Fields({}, f"{self.path}.{name}")

    def maybe_child(self, name: str) -> Fields | None:
        """A nested object, or None when absent."""
        value = self.get(name)
        if value is None:
            return None
        if not isinstance(value, dict):
            raise self._wrong(name, value, name)
        return Fields(value, f"{self.path}.{name}")

    def children(self, name: str) -> list[Fields]:
        """A list of nested objects; absent is empty, null items are objects without members."""
        value = self.get(name)
        if value is None:
            return []
        if not isinstance(value, list):
            raise self._wrong(name, value, f"[]{name}")
        return [Fields(item, f"{self.path}.{name}") for item in value]


def fields_of(raw: object, type_name: str) -> Fields:
    """A whole body as the Go type `type_name` (with its package) reads it."""
    if raw is not None and not isinstance(raw, dict):
        raise WrongType(f"json: cannot unmarshal {kind_of(raw)} into Go value of type {type_name}")
    return Fields(raw, type_name.rpartition(".")[2])


_RANGES: dict[str, tuple[int, int]] = {
    "int": (-(1 << 63), (1 << 63) - 1),
    "int64": (-(1 << 63), (1 << 63) - 1),
    "int32": (-(1 << 31), (1 << 31) - 1),
    "uint32": (0, (1 << 32) - 1),
    "uint64": (0, (1 << 64) - 1),
}
