"""Names of images and ids, as the reference compares them. Pure."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

SHORT_ID_LENGTH = 12


def short_id(id: str) -> str:
    """The twelve characters people are shown."""
    return id.partition(":")[2][:SHORT_ID_LENGTH] if ":" in id else id[:SHORT_ID_LENGTH]


def split_reference(reference: str) -> tuple[str, str]:
    """ "a/b:1" as ("a/b", "1"), "a@sha256:..." as ("a", "sha256:..."); no tag is ""."""
    name, at, digest = reference.partition("@")
    if at:
        return name, digest
    name, colon, tag = reference.rpartition(":")
    if not colon or "/" in tag:
        return reference, ""
    return name, tag


def familiar(name: str) -> str:
    """A name without what people leave out; new clients send docker.io/library/NAME for NAME."""
    bare = name.removeprefix("index.").removeprefix("docker.io/")
    if bare == name:
        return name
    rest = bare.removeprefix("library/")
    return bare if "/" in rest else rest


def image_matches(image: dict[str, Any], wanted: str, *, with_tag: bool = True) -> bool:
    """Whether an image of a list is the one called `wanted`: id, prefix of it, or a name."""
    id = str(image.get("Id") or "")
    bare = id.partition(":")[2]
    for candidate in (id, bare):
        if candidate and (
            candidate == wanted or (len(wanted) > 2 and candidate.startswith(wanted))
        ):
            return True
    name, tag = split_reference(familiar(wanted))
    for known in _names(image):
        known_name, known_tag = split_reference(familiar(known))
        if known_name == name and (not with_tag or not tag or known_tag == tag):
            return True
    return False


def _names(image: dict[str, Any]) -> Iterable[str]:
    yield from image.get("RepoTags") or ()
    yield from image.get("RepoDigests") or ()
