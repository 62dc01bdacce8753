"""Tables, templates and JSON: the `--format` of lists and the output of `inspect`."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, TextIO

from swarmctl import gotext
from swarmctl.errors import CliError
from swarmctl.tabs import align
from swarmd.base.gotemplate import Method, NilPointer, Struct, Template, TemplateError
from swarmd.base.gotemplate.errors import CallTrouble
from swarmd.base.gotemplate.functions import TemplateFunction
from swarmd.base.gotemplate.values import Value, is_sequence, show, type_name

QUIET = "{{.ID}}"
format_status = 64  # exit code of a template that cannot be parsed, where docker has one


def _encode(value: Value) -> str:
    if isinstance(value, Struct):
        listed = value.source is None
        return gotext.encode(_plain(value), escape_html=listed)
    if is_sequence(value):
        value = [_plain(item) if isinstance(item, Struct) else item for item in value]
    return gotext.encode(None if isinstance(value, NilPointer) else value)


def _plain(value: Struct) -> Any:
    """What stands behind a struct: its source, else its fields in order of name."""
    if value.source is not None:
        return value.source
    return {
        name: value.get(name)
        for name in sorted(value.fields)
        if not isinstance(value.fields[name], Method)
    }


def _text(value: Value) -> str:
    if not isinstance(value, str):
        raise CallTrouble(f"wrong type for value; expected string; got {type_name(value)}")
    return value


def _join(value: Value, separator: Value) -> str:
    if not is_sequence(value):
        raise CallTrouble(f"wrong type for value; expected []string; got {type_name(value)}")
    return _text(separator).join(show(item) for item in value)


def _split(value: Value, separator: Value) -> Value:
    text, mark = _text(value), _text(separator)
    return text.split(mark) if mark else list(text)


def _title(value: Value) -> str:
    out, start = "", True
    for char in _text(value):
        out += char.upper() if start else char
        start = not (char.isalnum() or char in "_'")
    return out


def _pad(value: Value, before: Value, after: Value) -> str:
    text = _text(value)
    if not text or not isinstance(before, int) or not isinstance(after, int):
        return text
    return " " * before + text + " " * after


def _truncate(value: Value, length: Value) -> str:
    text = _text(value)
    return text[:length] if isinstance(length, int) and length >= 0 else text


FUNCTIONS: Mapping[str, TemplateFunction] = {
    "json": _encode,
    "split": _split,
    "join": _join,
    "title": _title,
    "lower": lambda value: _text(value).lower(),
    "upper": lambda value: _text(value).upper(),
    "pad": _pad,
    "truncate": _truncate,
}
# Over a table's header the functions keep their hands off.
_HEADER_FUNCTIONS: Mapping[str, TemplateFunction] = {
    **FUNCTIONS,
    **{name: lambda value: value for name in ("json", "title", "lower", "upper")},
    **{name: lambda value, _: value for name in ("split", "join", "truncate")},
}


def parse(
    text: str, functions: Mapping[str, TemplateFunction] = FUNCTIONS, name: str = ""
) -> Template:
    """Parse a template. Raises CliError, exit 1."""
    try:
        return Template(name, text, functions)
    except TemplateError as error:
        raise CliError(f"template parsing error: {error}") from None


def run(template: Template, value: Value) -> str:
    """Run a template. Raises CliError."""
    try:
        return template.run(value)
    except TemplateError as error:
        raise CliError(f"template parsing error: {error}") from None


def print_typed(template: Template, value: Struct, out: TextIO) -> None:
    """Print one typed object by a template. Raises CliError, after the end of the line."""
    try:
        out.write(template.run(value) + "\n")
    except TemplateError as error:
        out.write("\n")
        out.flush()
        raise CliError(str(error)) from None


def label_header(name: object) -> str:
    """Column title for `{{.Label "com.example.zone"}}`: the last part, in words."""
    return str(name).rpartition(".")[2].replace("-", " ").replace("_", " ")


class Listing:
    """One kind of list: its columns' titles, and what `table` and `raw` mean."""

    def __init__(
        self,
        headers: Mapping[str, str],
        table: str,
        raw: str,
        quiet_raw: str,
        *,
        label: bool = False,
    ) -> None:
        self._headers, self._table, self._raw, self._quiet_raw = headers, table, raw, quiet_raw
        self._label = label

    def print(self, rows: Iterable[Struct], form: str, quiet: bool, out: TextIO) -> None:
        """Print the rows as `form` says (empty: table)."""
        source = self._source(form or "table", quiet)
        is_table = source.startswith("table")
        text = source.removeprefix("table") if is_table else source
        text = "{{json .}}" if source == "json" else text
        text = text.strip(" ").replace("\\t", "\t").replace("\\n", "\n")
        template = parse(text)
        body = "".join(run(template, row) + "\n" for row in rows)
        if not is_table:
            out.write(body)
            return
        fields: dict[str, Value] = dict(self._headers)
        if self._label:
            fields["Label"] = Method(label_header)
        header = run(parse(text, _HEADER_FUNCTIONS), Struct("formatter.SubHeaderContext", fields))
        out.write(align(f"{header}\n{body}"))

    def _source(self, form: str, quiet: bool) -> str:
        if form == "table":
            return QUIET if quiet else self._table
        if form == "raw":
            return self._quiet_raw if quiet else self._raw
        return form


Fetch = Callable[[str], tuple[Struct, str]]  # reference -> (typed object, its JSON text)


def inspect(
    references: Sequence[str], form: str, fetch: Fetch, out: TextIO, *, raw_too: bool = True
) -> None:
    """Print objects as JSON or by a template; those not found are named at the end.

    A template runs over the typed object; if that fails and `raw_too`, over the raw JSON, where
    a missing key is an error.
    """
    template = None
    if form not in ("", "json"):
        try:
            template = Template("", form, FUNCTIONS)
        except TemplateError as error:
            raise CliError(f"template parsing error: {error}", format_status) from None
    shown: list[str] = []
    errors: list[str] = []
    for reference in references:
        try:
            typed, raw = fetch(reference)
            if template is not None:
                raw = _by_template(form, template, typed, raw if raw_too else "")
            shown.append(raw)
        except CliError as error:
            errors.append(error.message)
    if template is not None:
        out.write("".join(text + "\n" for text in shown) or "\n")
    elif not shown:
        out.write("[]\n")
    else:
        whole = "[" + ",".join(shown) + "]"
        out.write((gotext.compact(whole) if form == "json" else gotext.indent(whole)) + "\n")
    if errors:
        out.flush()
        raise CliError("\n".join(errors))


def _by_template(form: str, template: Template, typed: Struct, raw: str) -> str:
    try:
        return template.run(typed)
    except TemplateError as error:
        if not raw:
            raise CliError(f"template parsing error: {error}") from None
    try:
        return Template("", form, FUNCTIONS, missing_key_error=True).run(json.loads(raw))
    except TemplateError as error:
        raise CliError(f"template parsing error: {error}") from None


def is_terminal(stream: TextIO) -> bool:
    """True when `stream` is somebody's screen."""
    try:
        return stream.isatty()
    except ValueError:
        return False


def stdin_text() -> str:
    """One line from standard input, without white space around it."""
    return sys.stdin.readline().strip()
