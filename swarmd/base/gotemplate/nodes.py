"""The parsed template: one class per construct. `str()` gives back Go's spelling of it."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TypeAlias

from .values import quote


@dataclass(frozen=True, slots=True)
class Text:
    """Literal text."""

    place: int
    text: str


@dataclass(frozen=True, slots=True)
class Literal:
    """A constant: string, number, character, bool; `source` is how it was written."""

    place: int
    value: object
    source: str

    def __str__(self) -> str:
        return self.source


@dataclass(frozen=True, slots=True)
class Nil:
    """The untyped nil."""

    place: int

    def __str__(self) -> str:
        return "nil"


@dataclass(frozen=True, slots=True)
class Dot:
    """The cursor."""

    place: int

    def __str__(self) -> str:
        return "."


@dataclass(frozen=True, slots=True)
class Field:
    """`.A.B`, from the cursor."""

    place: int
    names: tuple[str, ...]

    def __str__(self) -> str:
        return "".join("." + name for name in self.names)


@dataclass(frozen=True, slots=True)
class Variable:
    """`$x.A.B`; names[0] is the variable with its dollar sign."""

    place: int
    names: tuple[str, ...]

    def __str__(self) -> str:
        return ".".join(self.names)


@dataclass(frozen=True, slots=True)
class Function:
    """A function name."""

    place: int
    name: str

    def __str__(self) -> str:
        return self.name


@dataclass(frozen=True, slots=True)
class Chain:
    """`(pipeline).A.B`."""

    place: int
    node: Operand
    names: tuple[str, ...]

    def __str__(self) -> str:
        inner = f"({self.node})" if isinstance(self.node, Pipe) else str(self.node)
        return inner + "".join("." + name for name in self.names)


@dataclass(frozen=True, slots=True)
class Command:
    """One stage of a pipeline: an operand, or a function with arguments."""

    place: int
    args: tuple[Operand, ...]

    def __str__(self) -> str:
        return " ".join(f"({arg})" if isinstance(arg, Pipe) else str(arg) for arg in self.args)


@dataclass(frozen=True, slots=True)
class Pipe:
    """`$x := command | command`; declares names, or assigns when `assign`."""

    place: int
    names: tuple[str, ...]
    assign: bool
    commands: tuple[Command, ...]

    def __str__(self) -> str:
        head = ""
        if self.names:
            head = ", ".join(self.names) + (" = " if self.assign else " := ")
        return head + " | ".join(map(str, self.commands))


Operand: TypeAlias = Literal | Nil | Dot | Field | Variable | Function | Chain | Pipe


@dataclass(frozen=True, slots=True)
class Action:
    """`{{pipeline}}`: print it, unless it only sets variables."""

    place: int
    pipe: Pipe


@dataclass(frozen=True, slots=True)
class Branch:
    """`if`, `range` or `with`."""

    place: int
    kind: str
    pipe: Pipe
    body: tuple[Node, ...]
    otherwise: tuple[Node, ...]

    def __str__(self) -> str:
        return f"{{{{{self.kind} {self.pipe}}}}}"


@dataclass(frozen=True, slots=True)
class Jump:
    """`break` or `continue` inside `range`."""

    place: int
    kind: str


@dataclass(frozen=True, slots=True)
class Include:
    """`{{template "name" pipeline}}`."""

    place: int
    name: str
    pipe: Pipe | None

    def __str__(self) -> str:
        tail = f" {self.pipe}" if self.pipe else ""
        return f"{{{{template {quote(self.name)}{tail}}}}}"


Node: TypeAlias = Text | Action | Branch | Jump | Include


@dataclass(slots=True)
class Tree:
    """A whole template with the named ones defined in it."""

    name: str
    text: str
    body: tuple[Node, ...] = ()
    defined: dict[str, tuple[Node, ...]] = field(default_factory=dict)
