"""Template text to tokens: literal text, and inside `{{ }}` names, fields, strings, numbers."""

from __future__ import annotations

import re
from dataclasses import dataclass
from enum import Enum, auto

from .values import quote


class Kind(Enum):
    """What a token is."""

    TEXT = auto()
    LEFT = auto()
    RIGHT = auto()
    SPACE = auto()
    FIELD = auto()
    VARIABLE = auto()
    NAME = auto()
    KEYWORD = auto()
    BOOL = auto()
    NIL = auto()
    DOT = auto()
    NUMBER = auto()
    CHARACTER = auto()
    STRING = auto()
    RAW = auto()
    PIPE = auto()
    DECLARE = auto()
    ASSIGN = auto()
    OPEN = auto()
    CLOSE = auto()
    CHAR = auto()
    ERROR = auto()
    END = auto()


KEYWORDS = frozenset(
    ("block", "break", "continue", "define", "else", "end", "if", "range", "template", "with")
)
_TOKEN = re.compile(
    r"""
    (?P<SPACE>[ \t\r\n]+)
  | (?P<FIELD>\.[A-Za-z_]\w*)
  | (?P<VARIABLE>\$\w*)
  | (?P<NUMBER>[+-]?(?:0[xX][0-9a-fA-F_]+|0[bB][01_]+|0[oO][0-7_]+
        |(?:\d[\d_]*)?\.?\d[\d_]*\.?(?:[eE][+-]?\d+)?))
  | (?P<DOT>\.)
  | (?P<NAME>[A-Za-z_]\w*)
  | (?P<STRING>"(?:[^"\\\n]|\\.)*")
  | (?P<CHARACTER>'(?:[^'\\\n]|\\.)*')
  | (?P<RAW>`[^`]*`)
  | (?P<DECLARE>:=) | (?P<ASSIGN>=) | (?P<PIPE>\|) | (?P<OPEN>\() | (?P<CLOSE>\))
    """,
    re.VERBOSE,
)


@dataclass(frozen=True, slots=True)
class Token:
    """One token; `place` is its offset in the template."""

    kind: Kind
    text: str
    place: int

    def __str__(self) -> str:
        if self.kind is Kind.END:
            return "EOF"
        if self.kind is Kind.ERROR:
            return self.text
        if self.kind is Kind.KEYWORD:
            return f"<{self.text}>"
        return quote(self.text[:10]) + "..." if len(self.text) > 10 else quote(self.text)


class _Bad(Exception):
    def __init__(self, message: str, place: int) -> None:
        super().__init__(message)
        self.place = place


class Lexer:
    """Cuts one template into tokens."""

    def __init__(self, text: str) -> None:
        self._text = text
        self._place = 0
        self._depth = 0
        self._tokens: list[Token] = []

    def tokens(self) -> list[Token]:
        """All tokens, ending with END, or with ERROR whose text says what is wrong.

        The error is a token because the reference reads lazily: what the parser finds
        wrong before that place is reported first.
        """
        try:
            return self._all()
        except _Bad as bad:
            return [*self._tokens, Token(Kind.ERROR, str(bad), bad.place)]

    def _all(self) -> list[Token]:
        trim_next = False
        while True:
            start = self._text.find("{{", self._place)
            literal = self._text[self._place : start if start >= 0 else None]
            begin = self._place
            if trim_next:
                begin += len(literal) - len(literal.lstrip(" \t\r\n"))
                literal = literal.lstrip(" \t\r\n")
            trim_before = start >= 0 and bool(re.match(r"\{\{-[ \t\r\n]", self._text[start:]))
            if trim_before:
                literal = literal.rstrip(" \t\r\n")
            if literal:
                self._add(Kind.TEXT, literal, begin)
            if start < 0:
                self._add(Kind.END, "", len(self._text))
                return self._tokens
            self._place = start + (3 if trim_before else 2)
            trim_next = self._comment() if self._at_comment() else self._action(start)

    def _at_comment(self) -> bool:
        return bool(re.match(r"[ \t\r\n]*/\*", self._text[self._place :]))

    def _comment(self) -> bool:
        end = self._text.find("*/", self._place)
        if end < 0:
            raise self._error("unclosed comment", self._place)
        found = re.match(r"([ \t\r\n]+-)?\}\}", self._text[end + 2 :])
        if found is None:
            raise self._error("comment ends before closing delimiter", end)
        self._place = end + 2 + found.end()
        return found.group(1) is not None

    def _action(self, start: int) -> bool:
        """Tokens of one action; True when white space after it is to be dropped."""
        self._add(Kind.LEFT, "{{", start)
        self._depth = 0
        while True:
            right = re.compile(r"([ \t\r\n]+-)?\}\}").match(self._text, self._place)
            if right is not None:
                if self._depth:
                    raise self._error("unclosed left paren", self._place)
                self._add(Kind.RIGHT, "}}", self._place)
                self._place = right.end()
                return right.group(1) is not None
            if self._place >= len(self._text):
                raise self._error("unclosed action", self._place)
            self._one()

    def _one(self) -> None:
        place = self._place
        found = _TOKEN.match(self._text, place)
        if found is None or found.lastgroup is None:
            self._odd(self._text[place])
            return
        kind, text = Kind[found.lastgroup], found.group()
        if kind is Kind.NAME:
            kind = _name_kind(text)
        self._place = found.end()
        if kind is Kind.NUMBER and re.match(r"\w", self._text[self._place :]):
            rest = re.match(r"\w+", self._text[self._place :])
            raise self._error(f"bad number syntax: {quote(text + (rest.group() if rest else ''))}")
        self._depth += {Kind.OPEN: 1, Kind.CLOSE: -1}.get(kind, 0)
        if self._depth < 0:
            raise self._error("unexpected right paren", place)
        self._add(kind, text, place)

    def _odd(self, char: str) -> None:
        if char == '"':
            raise self._error("unterminated quoted string")
        if char == "`":
            raise self._error("unterminated raw quoted string")
        if char == "'":
            raise self._error("unterminated character constant")
        if char == ":":
            raise self._error("expected :=")
        if not (char.isascii() and char.isprintable()):
            raise self._error(f"unrecognized character in action: U+{ord(char):04X} '{char}'")
        self._add(Kind.CHAR, char, self._place)
        self._place += 1

    def _add(self, kind: Kind, text: str, place: int) -> None:
        self._tokens.append(Token(kind, text, place))

    def _error(self, message: str, place: int | None = None) -> _Bad:
        return _Bad(message, self._place if place is None else place)


def _name_kind(text: str) -> Kind:
    if text in KEYWORDS:
        return Kind.KEYWORD
    return {"true": Kind.BOOL, "false": Kind.BOOL, "nil": Kind.NIL}.get(text, Kind.NAME)
