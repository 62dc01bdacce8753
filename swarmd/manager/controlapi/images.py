"""Image references: is this text one? The grammar of docker's references, short forms too."""

from __future__ import annotations

import re

_HOST = r"(?:[a-zA-Z0-9]|[a-zA-Z0-9][a-zA-Z0-9-]*[a-zA-Z0-9])"
_DOMAIN = rf"(?:{_HOST}(?:\.{_HOST})*|\[[a-fA-F0-9:]+\])(?::[0-9]+)?"
_PART = r"[a-z0-9]+(?:(?:\.|_|__|-+)[a-z0-9]+)*"
_PATH = rf"{_PART}(?:/{_PART})*"
_ALGORITHM = r"[A-Za-z][A-Za-z0-9]*(?:[-_+.][A-Za-z][A-Za-z0-9]*)*"
_REFERENCE = re.compile(
    rf"(?P<name>(?:{_DOMAIN}/)?{_PATH})(?::[A-Za-z0-9_][A-Za-z0-9_.-]{{0,127}})?"
    rf"(?:@(?P<algorithm>{_ALGORITHM}):(?P<hex>[0-9a-fA-F]{{32,}}))?",
    re.ASCII,
)
_DIGEST_LENGTHS = {"sha256": 64, "sha384": 96, "sha512": 128}
name_length_max = 255
reference_length_max = 4096  # longer texts are refused before the pattern sees them


def is_image_reference(text: str) -> bool:
    """True for `name[:tag][@digest]`, where the name may lack the registry.

    A bare image id (64 hexadecimal digits) is not a name, and upper case is only allowed
    in the registry's host name.
    """
    if len(text) > reference_length_max or re.fullmatch(r"[a-f0-9]{64}", text):
        return False
    domain, remainder = _split(text)
    path = remainder.partition(":")[0]
    if path != path.lower():
        return False
    found = _REFERENCE.fullmatch(f"{domain}/{remainder}")
    if found is None or len(found["name"].partition("/")[2]) > name_length_max:
        return False
    algorithm = found["algorithm"]
    if algorithm is None:
        return True
    digits: str = found["hex"]
    return _DIGEST_LENGTHS.get(algorithm) == len(digits) and digits == digits.lower()


def _split(text: str) -> tuple[str, str]:
    """(registry, rest): the first part is a registry if it looks like a host (20.10 rule)."""
    first, slash, rest = text.partition("/")
    is_host = any(mark in first for mark in ".:") or first == "localhost"
    if slash and is_host:
        domain, remainder = ("docker.io" if first == "index.docker.io" else first), rest
    else:
        domain, remainder = "docker.io", text
    if domain == "docker.io" and "/" not in remainder:
        remainder = "library/" + remainder
    return domain, remainder
