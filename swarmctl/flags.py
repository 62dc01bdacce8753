"""Flags of one command, and reading them the way docker's CLI does.

Long and short forms, `--flag=value`, switches that take a value only after `=`, grouped short
switches, flags after arguments, `--` as the end of flags. click keeps the list of flags (help,
completion); the reading is ours because click's own differs in all these points.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

import click

from swarmctl.errors import UsageError
from swarmctl.gotext import quote
from swarmctl.kinds import BOOL, Kind


class Flag(click.Option):
    """One flag; `default` is the text shown in the help, `value` what it means."""

    def __init__(
        self,
        name: str,
        kind: Kind,
        help: str,
        *,
        short: str = "",
        default: str = "",
        value: Any = None,
        choices: Sequence[str] = (),
    ) -> None:
        names = [f"--{name}"] + ([f"-{short}"] if short else [])
        super().__init__(
            names,
            help=help,
            is_flag=kind is BOOL,
            multiple=kind.many,
            type=_metatype(kind, choices),
        )
        self.flag, self.kind, self.short, self.shown_default = name, kind, short, default
        self.meaning: Any = [] if kind.many else value

    @property
    def label(self) -> str:
        """The flag as error texts name it."""
        return f"-{self.short}, --{self.flag}" if self.short else f"--{self.flag}"


def _metatype(kind: Kind, choices: Sequence[str]) -> click.ParamType[Any] | None:
    if kind is BOOL:
        return None
    return click.Choice(choices) if choices else click.STRING


@dataclass
class Given:
    """What the user gave: values by flag name, which were changed, and the arguments."""

    values: dict[str, Any]
    changed: set[str] = field(default_factory=set)
    args: list[str] = field(default_factory=list)
    help: bool = False

    def __getitem__(self, name: str) -> Any:
        return self.values[name]


def defaults(flags: Iterable[Flag]) -> Given:
    """No flag used."""
    values = {flag.flag: _fresh(flag.meaning) for flag in flags}
    return Given(values)


def _fresh(value: Any) -> Any:
    return list(value) if isinstance(value, list) else value


class Reader:
    """Reads the words of one command. `interspersed` allows flags after arguments."""

    def __init__(self, flags: Sequence[Flag], *, interspersed: bool = True) -> None:
        self._long = {flag.flag: flag for flag in flags}
        self._short = {flag.short: flag for flag in flags if flag.short}
        self._flags = flags
        self._interspersed = interspersed

    def read(self, words: Sequence[str]) -> Given:
        """Take the words apart. Raises UsageError with the text for the first line."""
        given = defaults(self._flags)
        rest = list(words)
        while rest:
            word = rest.pop(0)
            if word == "--":
                given.args += rest
                break
            if word.startswith("--"):
                self._read_long(word, rest, given)
            elif word.startswith("-") and word != "-":
                self._read_short(word[1:], rest, given)
            else:
                given.args.append(word)
                if not self._interspersed:
                    given.args += rest
                    break
        return given

    def _read_long(self, word: str, rest: list[str], given: Given) -> None:
        name, equals, value = word[2:].partition("=")
        if not name or name.startswith("-"):
            raise UsageError(f"bad flag syntax: {word}")
        flag = self._long.get(name)
        if flag is None:
            if name == "help":
                given.help = True
                return
            raise UsageError(f"unknown flag: --{name}")
        if equals:
            self._set(flag, value, given)
        elif flag.kind is BOOL:
            self._set(flag, "true", given)
        elif rest:
            self._set(flag, rest.pop(0), given)
        else:
            raise UsageError(f"flag needs an argument: --{name}")

    def _read_short(self, letters: str, rest: list[str], given: Given) -> None:
        whole = letters
        while letters:
            letter, letters = letters[0], letters[1:]
            flag = self._short.get(letter)
            if flag is None:
                if letter == "h":
                    given.help = True
                    return
                raise UsageError(f"unknown shorthand flag: {quote(letter)[1:-1]!r} in -{whole}")
            if letters.startswith("="):
                self._set(flag, letters[1:], given)
                return
            if flag.kind is BOOL:
                self._set(flag, "true", given)
                continue
            if not letters and not rest:
                raise UsageError(f"flag needs an argument: {letter!r} in -{whole}")
            self._set(flag, letters or rest.pop(0), given)
            return

    def _set(self, flag: Flag, text: str, given: Given) -> None:
        try:
            value = flag.kind.parse(text)
        except ValueError as error:
            raise UsageError(
                f"invalid argument {quote(text)} for {quote(flag.label)} flag: {error}"
            ) from None
        given.changed.add(flag.flag)
        if not flag.kind.many:
            given.values[flag.flag] = value
        elif isinstance(value, list):
            given.values[flag.flag] += value
        elif value is not None:
            given.values[flag.flag].append(value)
