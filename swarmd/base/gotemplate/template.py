"""Run a parsed template over a value."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from dataclasses import replace
from typing import NoReturn

from .errors import CallTrouble, TemplateError, ValueTrouble
from .functions import BUILTINS, TemplateFunction
from .nodes import (
    Action,
    Branch,
    Chain,
    Command,
    Dot,
    Field,
    Function,
    Include,
    Jump,
    Literal,
    Nil,
    Node,
    Operand,
    Pipe,
    Text,
    Variable,
)
from .parser import Parser
from .values import Method, NilPointer, Struct, Value, is_sequence, quote, show, truth, type_name

output_max = 4 << 20  # characters one run may produce; a loop must not fill the memory
include_depth_max = 100


class _Break(Exception):
    pass


class _Continue(Exception):
    pass


class Template:
    """A parsed template, ready to run any number of times.

    `functions` adds to Go's built-in ones. `missing_key_error` refuses a map key that is not
    there; otherwise it prints `<no value>`.
    """

    def __init__(
        self,
        name: str,
        text: str,
        functions: Mapping[str, TemplateFunction] | None = None,
        *,
        missing_key_error: bool = False,
    ) -> None:
        self.functions = {**BUILTINS, **(functions or {})}
        self.missing_key_error = missing_key_error
        self.tree = Parser(name, text, self.functions).parse()

    def run(self, value: Value) -> str:
        """The text the template makes of `value`. Raises `TemplateError`."""
        run = _Run(self, value)
        run.walk(self.tree.body, value)
        return "".join(run.out)


class _Run:
    """One execution: output, variables, and where we are for error texts."""

    def __init__(self, template: Template, value: Value) -> None:
        self._template = template
        self._tree = template.tree
        self._name = template.tree.name
        self._variables: list[tuple[str, Value]] = [("$", value)]
        self._size = 0
        self._includes = 0
        self.out: list[str] = []

    def walk(self, nodes: tuple[Node, ...], dot: Value) -> None:
        for node in nodes:
            if isinstance(node, Text):
                self._write(node.text, node)
            elif isinstance(node, Action):
                value = self._pipe(node.pipe, dot)
                if not node.pipe.names:
                    self._write(show(value, "<no value>"), node)
            elif isinstance(node, Branch):
                kept = len(self._variables)
                self._branch(node, dot)
                del self._variables[kept:]
            elif isinstance(node, Jump):
                raise _Break if node.kind == "break" else _Continue
            else:
                self._include(node, dot)

    def _write(self, text: str, node: Node) -> None:
        self._size += len(text)
        if self._size > output_max:
            raise TemplateError(f"template: {self._tree.name}: output is too large")
        self.out.append(text)

    def _fail(self, node: Operand | Command | Include, message: str) -> NoReturn:
        before = self._tree.text[: node.place]
        column = len(before.encode()) - len(before[: before.rfind("\n") + 1].encode())
        raise TemplateError(
            f"template: {self._tree.name}:{before.count(chr(10)) + 1}:{column}: "
            f"executing {quote(self._name)} at <{node}>: {message}"
        )

    # -- control ---------------------------------------------------------------------

    def _branch(self, node: Branch, dot: Value) -> None:
        if node.kind == "range":
            self._range(node, dot)
            return
        value = self._pipe(node.pipe, dot)
        if truth(value):
            self.walk(node.body, value if node.kind == "with" else dot)
        else:
            self.walk(node.otherwise, dot)

    def _range(self, node: Branch, dot: Value) -> None:
        value = self._pipe(node.pipe, dot, declare=False)
        items = self._items(node, value)
        if not items:
            self.walk(node.otherwise, dot)
            return
        kept = len(self._variables)
        for key, item in items:
            self._bind(node.pipe, (key, item))
            try:
                self.walk(node.body, item)
            except _Continue:
                pass
            except _Break:
                break
            finally:
                del self._variables[kept:]

    def _items(self, node: Branch, value: Value) -> list[tuple[Value, Value]]:
        if isinstance(value, Mapping):
            return [(key, value[key]) for key in sorted(value)]
        if is_sequence(value):
            return list(enumerate(value))
        if isinstance(value, int) and not isinstance(value, bool):
            return [(number, number) for number in range(min(value, output_max))]
        if value is not None:
            self._fail(node.pipe, f"range can't iterate over {show(value)}")
        return []

    def _bind(self, pipe: Pipe, pair: tuple[Value, Value]) -> None:
        values = pair if len(pipe.names) == 2 else pair[1:]
        for name, value in zip(pipe.names, values, strict=False):
            self._set(name, value, pipe.assign)

    def _set(self, name: str, value: Value, assign: bool) -> None:
        if assign:
            for number in range(len(self._variables) - 1, -1, -1):
                if self._variables[number][0] == name:
                    self._variables[number] = (name, value)
                    return
        self._variables.append((name, value))

    def _include(self, node: Include, dot: Value) -> None:
        body = self._tree.defined.get(node.name)
        if body is None:
            self._fail(node, f"template {quote(node.name)} not defined")
        if self._includes >= include_depth_max:
            self._fail(node, f"exceeded maximum template depth ({include_depth_max})")
        value = self._pipe(node.pipe, dot) if node.pipe else None
        outer, name = self._variables, self._name
        self._variables, self._name = [("$", value)], node.name
        self._includes += 1
        try:
            self.walk(body, value)
        finally:
            self._includes -= 1
            self._variables, self._name = outer, name

    # -- values ----------------------------------------------------------------------

    def _pipe(self, pipe: Pipe, dot: Value, *, declare: bool = True) -> Value:
        value: Value = None
        for number, command in enumerate(pipe.commands):
            value = self._command(command, dot, (value,) if number else ())
        if declare:
            for name in pipe.names:
                self._set(name, value, pipe.assign)
        return value

    def _command(self, command: Command, dot: Value, final: tuple[Value, ...]) -> Value:
        first = command.args[0]
        if isinstance(first, Function):
            return self._call(first, command, dot, final)
        if len(command.args) > 1 or final:
            if isinstance(first, Field | Variable | Chain):
                return self._method(first, command, dot, final)
            self._fail(first, f"can't give argument to non-function {first}")
        if isinstance(first, Nil):
            self._fail(first, "nil is not a command")
        return self._operand(first, dot)

    def _method(
        self,
        node: Field | Variable | Chain,
        command: Command,
        dot: Value,
        final: tuple[Value, ...],
    ) -> Value:
        """A field with arguments: only a method that takes some can mean it."""
        name = node.names[-1]
        holder = self._operand(replace(node, names=node.names[:-1]), dot)
        method = holder.fields.get(name) if isinstance(holder, Struct) else None
        if not isinstance(method, Method):
            self._operand(node, dot)
            self._fail(node, f"{name} has arguments but cannot be invoked as function")
        values = [self._operand(arg, dot) for arg in command.args[1:]]
        values += final
        self._count(node, name, method.function, len(values))
        try:
            return method.function(*values)
        except CallTrouble as trouble:
            self._fail(command, f"error calling {name}: {trouble}")

    def _call(
        self, node: Function, command: Command, dot: Value, final: tuple[Value, ...]
    ) -> Value:
        function = self._template.functions[node.name]
        if node.name in ("and", "or"):
            return self._logic(node, command, dot, final)
        values = [self._operand(arg, dot) for arg in command.args[1:]]
        values += final
        self._count(node, node.name, function, len(values))
        try:
            return function(*values)
        except CallTrouble as trouble:
            self._fail(command, f"error calling {node.name}: {trouble}")

    def _logic(
        self, node: Function, command: Command, dot: Value, final: tuple[Value, ...]
    ) -> Value:
        """`and` and `or` stop at the first value that decides."""
        if len(command.args) == 1 and not final:
            self._fail(node, f"wrong number of args for {node.name}: want at least 1 got 0")
        value: Value = None
        for arg in command.args[1:]:
            value = self._operand(arg, dot)
            if truth(value) == (node.name == "or"):
                return value
        return final[0] if final else value

    def _count(self, node: Operand, name: str, function: TemplateFunction, got: int) -> None:
        names = inspect.signature(function).parameters.values()
        fixed = sum(p.kind is not p.VAR_POSITIONAL and p.default is p.empty for p in names)
        variadic = any(p.kind is p.VAR_POSITIONAL for p in names)
        if got < fixed and variadic:
            text = f"want at least {fixed} got {got}"
        elif not variadic and not fixed <= got <= len(names):
            text = f"want {fixed} got {got}"
        else:
            return
        self._fail(node, f"wrong number of args for {name}: {text}")

    def _operand(self, node: Operand, dot: Value) -> Value:
        if isinstance(node, Literal):
            return node.value
        if isinstance(node, Dot):
            return dot
        if isinstance(node, Nil):
            return None
        if isinstance(node, Field):
            return self._fields(node, dot, node.names)
        if isinstance(node, Variable):
            value = next(v for name, v in reversed(self._variables) if name == node.names[0])
            return self._fields(node, value, node.names[1:])
        if isinstance(node, Chain):
            return self._fields(node, self._operand(node.node, dot), node.names)
        if isinstance(node, Pipe):
            kept = len(self._variables)
            value = self._pipe(node, dot)
            del self._variables[kept:]
            return value
        return self._call(node, Command(node.place, (node,)), dot, ())

    def _fields(self, node: Operand, value: Value, names: tuple[str, ...]) -> Value:
        for name in names:
            try:
                value = self._field(value, name)
            except ValueTrouble as trouble:
                self._fail(node, str(trouble))
        return value

    def _field(self, value: Value, name: str) -> Value:
        if isinstance(value, Struct):
            if name not in value.fields:
                raise ValueTrouble(f"can't evaluate field {name} in type {value.type_name}")
            return value.get(name)
        if isinstance(value, Mapping):
            if name not in value and self._template.missing_key_error:
                raise ValueTrouble(f"map has no entry for key {quote(name)}")
            return value.get(name)
        if isinstance(value, NilPointer):
            raise ValueTrouble(f"nil pointer evaluating {value.type_name}.{name}")
        if value is None:
            if self._template.missing_key_error:
                raise ValueTrouble(f"nil data; no entry for key {quote(name)}")
            return None
        raise ValueTrouble(f"can't evaluate field {name} in type {type_name(value)}")
