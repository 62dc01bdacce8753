"""The one error of this package and the small step from a value's trouble to it."""

from __future__ import annotations


class TemplateError(Exception):
    """A template that cannot be parsed or run; the text is the reference implementation's."""


class ValueTrouble(Exception):
    """Trouble with a value, before the place in the template is known."""


class CallTrouble(ValueTrouble):
    """A function refused its arguments; shown as `error calling <name>: ...`."""
