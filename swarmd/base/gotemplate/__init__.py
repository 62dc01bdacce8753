"""Go's text/template language: parse a template, run it over plain Python values.

Docker users write Go templates in service specs and in `--format`; both must mean what they
mean to the stock programs, down to the text of an error. Knows nothing of swarms. Start
reading at `template.Template`. The command line keeps an identical copy of this package,
because it may not import the daemon; a test holds the two together.
"""

from .errors import TemplateError
from .template import Template
from .values import Method, NilPointer, Struct

__all__ = ["Method", "NilPointer", "Struct", "Template", "TemplateError"]
