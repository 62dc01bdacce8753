"""Tokens to a tree. Errors read `template: <name>:<line>: <what>`, as the reference prints."""

from __future__ import annotations

from collections.abc import Container
from typing import NoReturn

from .errors import TemplateError
from .lexer import Kind, Lexer, Token
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
    Tree,
    Variable,
)
from .values import quote

depth_max = 64  # nested constructs; keeps hostile input off the Python stack

_OPERANDS = frozenset(
    (Kind.BOOL, Kind.CHARACTER, Kind.DOT, Kind.FIELD, Kind.NAME, Kind.NUMBER, Kind.NIL)
) | {Kind.RAW, Kind.STRING, Kind.VARIABLE, Kind.OPEN}
_SIMPLE_ESCAPES = {"a": "\a", "b": "\b", "f": "\f", "n": "\n", "r": "\r", "t": "\t", "v": "\v"}


class Parser:
    """Parses one template text."""

    def __init__(self, name: str, text: str, functions: Container[str]) -> None:
        self._tree = Tree(name, text)
        self._tokens = Lexer(text).tokens()
        self._next = 0
        self._functions = functions
        self._variables = ["$"]
        self._range_depth = 0
        self._depth = 0

    def parse(self) -> Tree:
        """The tree of the whole text. Raises `TemplateError`."""
        body, end = self._list(())
        if end is not None:
            self._fail(f"unexpected {{{{{end}}}}}")
        self._tree.body = body
        return self._tree

    # -- token reading ---------------------------------------------------------------

    def _peek(self) -> Token:
        return self._tokens[self._next]

    def _take(self) -> Token:
        token = self._tokens[self._next]
        self._next = min(self._next + 1, len(self._tokens) - 1)
        return token

    def _skip_space(self) -> Token:
        while self._peek().kind is Kind.SPACE:
            self._next += 1
        return self._peek()

    def _fail(self, message: str) -> NoReturn:
        place = self._tokens[max(self._next - 1, 0)].place
        line = self._tree.text.count("\n", 0, place) + 1
        raise TemplateError(f"template: {self._tree.name}:{line}: {message}")

    def _unexpected(self, token: Token, context: str) -> NoReturn:
        if token.kind is Kind.ERROR:
            self._fail(token.text)
        self._fail(f"unexpected {token} in {context}")

    # -- structure -------------------------------------------------------------------

    def _list(self, stops: tuple[str, ...]) -> tuple[tuple[Node, ...], str | None]:
        """Nodes up to a stopping keyword; the keyword, or None at the end of the text."""
        self._depth += 1
        if self._depth > depth_max:
            self._fail("template is nested too deeply")
        nodes: list[Node] = []
        while True:
            token = self._take()
            if token.kind is Kind.END:
                if stops:
                    self._fail("unexpected EOF")
                self._depth -= 1
                return tuple(nodes), None
            if token.kind is Kind.ERROR:
                self._fail(token.text)
            if token.kind is Kind.TEXT:
                nodes.append(Text(token.place, token.text))
                continue
            word = self._skip_space()
            if word.kind is Kind.KEYWORD and word.text in ("end", "else"):
                self._next += 1
                if word.text not in stops:
                    self._fail(f"unexpected {{{{{word.text}}}}}")
                self._depth -= 1
                return tuple(nodes), word.text
            node = self._action()
            if node is not None:
                nodes.append(node)

    def _action(self) -> Node | None:
        token = self._peek()
        if token.kind is not Kind.KEYWORD:
            return Action(token.place, self._pipe("command", Kind.RIGHT))
        self._next += 1
        if token.text in ("if", "range", "with"):
            return self._branch(token)
        if token.text in ("break", "continue"):
            if not self._range_depth:
                self._fail(f"{{{{{token.text}}}}} outside {{{{range}}}}")
            self._right(f"{{{{{token.text}}}}}")
            return Jump(token.place, token.text)
        if token.text in ("define", "block"):
            return self._define(token)
        return self._include(token)

    def _right(self, context: str) -> None:
        token = self._skip_space()
        self._next += 1
        if token.kind is not Kind.RIGHT:
            self._unexpected(token, context)

    def _branch(self, word: Token) -> Branch:
        kept = len(self._variables)
        pipe = self._pipe(word.text, Kind.RIGHT)
        self._range_depth += word.text == "range"
        body, end = self._list(("end", "else"))
        self._range_depth -= word.text == "range"
        otherwise: tuple[Node, ...] = ()
        if end == "else":
            otherwise = self._otherwise(word)
        else:
            self._right("end")
        del self._variables[kept:]
        return Branch(word.place, word.text, pipe, body, otherwise)

    def _otherwise(self, word: Token) -> tuple[Node, ...]:
        again = self._skip_space()
        if again.kind is Kind.KEYWORD and again.text == word.text and word.text != "range":
            self._next += 1
            return (self._branch(again),)
        self._right("else")
        nodes, _ = self._list(("end",))
        self._right("end")
        return nodes

    def _name(self, context: str) -> str:
        token = self._skip_space()
        self._next += 1
        if token.kind not in (Kind.STRING, Kind.RAW):
            self._unexpected(token, context)
        return self._string(token)

    def _define(self, word: Token) -> Include | None:
        context = f"{word.text} clause"
        name = self._name(context)
        pipe = None
        if word.text == "define":
            self._right(context)
        else:
            pipe = self._pipe(context, Kind.RIGHT)
        outer, self._variables = self._variables, ["$"]
        body, end = self._list(("end",))
        self._variables = outer
        if end != "end":
            self._fail(f"unexpected {{{{{end}}}}} in {context}")
        self._right("end")
        self._tree.defined.setdefault(name, body)
        return None if word.text == "define" else Include(word.place, name, pipe)

    def _include(self, word: Token) -> Include:
        name = self._name("template clause")
        if self._skip_space().kind is Kind.RIGHT:
            self._next += 1
            return Include(word.place, name, None)
        return Include(word.place, name, self._pipe("template clause", Kind.RIGHT))

    # -- pipelines -------------------------------------------------------------------

    def _pipe(self, context: str, end: Kind) -> Pipe:
        place = self._skip_space().place
        names, assign = self._declarations(context)
        commands: list[Command] = []
        while True:
            token = self._skip_space()
            if token.kind is end:
                self._next += 1
                self._check(commands, context)
                return Pipe(place, tuple(names), assign, tuple(commands))
            if token.kind not in _OPERANDS:
                self._next += 1
                self._unexpected(token, context)
            commands.append(self._command())

    def _check(self, commands: list[Command], context: str) -> None:
        if not commands:
            self._fail(f"missing value for {context}")
        for number, command in enumerate(commands[1:], 2):
            if isinstance(command.args[0], Literal | Nil | Dot):
                self._fail(f"non executable command in pipeline stage {number}")

    def _declarations(self, context: str) -> tuple[list[str], bool]:
        names: list[str] = []
        while self._skip_space().kind is Kind.VARIABLE:
            back = self._next
            name = self._take().text
            after = self._skip_space()
            if after.kind in (Kind.DECLARE, Kind.ASSIGN):
                self._next += 1
                names.append(name)
                self._declare(names, after.kind is Kind.ASSIGN)
                return names, after.kind is Kind.ASSIGN
            if after.kind is not Kind.CHAR or after.text != ",":
                self._next = back
                if names:
                    self._fail("range can only initialize variables")
                return names, False
            self._next += 1
            names.append(name)
            if context != "range" or len(names) > 1:
                self._fail(f"too many declarations in {context}")
        if names:
            self._fail("range can only initialize variables")
        return names, False

    def _declare(self, names: list[str], assign: bool) -> None:
        for name in names:
            if assign and name not in self._variables:
                self._fail(f"undefined variable {quote(name)}")
            if not assign:
                self._variables.append(name)

    def _command(self) -> Command:
        place = self._skip_space().place
        args: list[Operand] = []
        while True:
            self._skip_space()
            operand = self._operand()
            if operand is not None:
                args.append(operand)
            token = self._take()
            if token.kind is Kind.SPACE:
                continue
            if token.kind in (Kind.RIGHT, Kind.CLOSE):
                self._next -= 1
            elif token.kind is Kind.PIPE:
                after = self._skip_space()
                if after.kind in (Kind.RIGHT, Kind.CLOSE):
                    self._next += 1
                    self._fail("missing value for command")
            else:
                self._unexpected(token, "operand")
            break
        if not args:
            self._fail("empty command")
        return Command(place, tuple(args))

    def _operand(self) -> Operand | None:
        node = self._term()
        if node is None or self._peek().kind is not Kind.FIELD:
            return node
        place = self._peek().place  # the reference counts a chain from its second name
        names = []
        while self._peek().kind is Kind.FIELD:
            names.append(self._take().text[1:])
        if isinstance(node, Field):
            return Field(place, (*node.names, *names))
        if isinstance(node, Variable):
            return Variable(place, (*node.names, *names))
        if isinstance(node, Literal | Nil):
            self._fail(f"unexpected . after term {quote(str(node))}")
        return Chain(place, node, tuple(names))

    def _term(self) -> Operand | None:
        token = self._skip_space()
        make = {
            Kind.NAME: self._function,
            Kind.VARIABLE: self._variable,
            Kind.OPEN: self._group,
            Kind.NUMBER: self._number,
        }.get(token.kind)
        if make is not None:
            return make(self._take())
        if token.kind not in _OPERANDS:
            return None
        self._next += 1
        if token.kind is Kind.DOT:
            return Dot(token.place)
        if token.kind is Kind.NIL:
            return Nil(token.place)
        if token.kind is Kind.FIELD:
            return Field(token.place, (token.text[1:],))
        if token.kind is Kind.BOOL:
            return Literal(token.place, token.text == "true", token.text)
        if token.kind is Kind.CHARACTER:
            text = self._string(token)
            if len(text) != 1:
                self._fail(f"malformed character constant: {token.text}")
            return Literal(token.place, ord(text), token.text)
        return Literal(token.place, self._string(token), token.text)

    def _function(self, token: Token) -> Operand:
        if token.text not in self._functions:
            self._fail(f"function {quote(token.text)} not defined")
        return Function(token.place, token.text)

    def _variable(self, token: Token) -> Operand:
        if token.text not in self._variables:
            self._fail(f"undefined variable {quote(token.text)}")
        return Variable(token.place, (token.text,))

    def _group(self, token: Token) -> Operand:
        self._depth += 1
        if self._depth > depth_max:
            self._fail("template is nested too deeply")
        pipe = self._pipe("parenthesized pipeline", Kind.CLOSE)
        self._depth -= 1
        return pipe

    def _number(self, token: Token) -> Operand:
        text = token.text.replace("_", "")
        try:
            digits = text.lstrip("+-")
            octal = len(digits) > 1 and digits.isdigit() and digits.startswith("0")
            return Literal(token.place, int(text, 8 if octal else 0), token.text)
        except ValueError:
            pass
        try:
            return Literal(token.place, float(text), token.text)
        except ValueError:
            self._fail(f"illegal number syntax: {quote(token.text)}")

    def _string(self, token: Token) -> str:
        """The text a string or character token stands for."""
        if token.kind is Kind.RAW:
            return token.text[1:-1]
        body, out, place = token.text[1:-1], [], 0
        while place < len(body):
            char = body[place]
            place += 1
            if char != "\\":
                out.append(char)
                continue
            letter = body[place]
            place += 1
            width = {"x": 2, "u": 4, "U": 8}.get(letter, 0)
            if letter in _SIMPLE_ESCAPES or letter in "\\\"'":
                out.append(_SIMPLE_ESCAPES.get(letter, letter))
            elif width and len(body) >= place + width:
                out.append(self._code(body[place : place + width], 16))
                place += width
            elif letter in "01234567":
                out.append(self._code(body[place - 1 : place + 2], 8))
                place += 2
            else:
                self._fail("invalid syntax")
        return "".join(out)

    def _code(self, digits: str, base: int) -> str:
        try:
            return chr(int(digits, base))
        except (ValueError, OverflowError):
            self._fail("invalid syntax")
