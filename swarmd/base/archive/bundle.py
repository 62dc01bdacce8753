"""A bundle: a tar whose first file says what is in the others.

    manifest.json          what, when, from where; SHA-256 and size of every file
    manifest.json.sha256   of the manifest itself, as sha256sum writes it
    ...                    the files, in the manifest's order

The tar is made in one way only, so reading it is making it again and comparing: a bit changed
anywhere shows, in padding and headers too. Any tar program can look at it.
"""

from __future__ import annotations

import hashlib
import io
import json
import tarfile
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from swarmd.base.archive.errors import Damaged, NewerFormat, NotAnArchive

FORMAT = 1
MANIFEST = "manifest.json"
MANIFEST_SUM = "manifest.json.sha256"
_MODE = 0o600


@dataclass(frozen=True, slots=True)
class Bundle:
    """What a backup holds: facts about it, and files by name."""

    manifest: Mapping[str, Any]
    files: Mapping[str, bytes]


def pack(facts: Mapping[str, Any], files: Mapping[str, bytes]) -> bytes:
    """Make a bundle; `facts` are JSON values, the list of files is added to them."""
    listed = {
        name: {"SHA256": hashlib.sha256(data).hexdigest(), "Bytes": len(data)}
        for name, data in files.items()
    }
    manifest = {"Format": FORMAT, **facts, "Files": listed}
    text = json.dumps(manifest, indent=2, ensure_ascii=False).encode() + b"\n"
    return _tar([(MANIFEST, text), (MANIFEST_SUM, _sum(text)), *files.items()])


def unpack(data: bytes) -> Bundle:
    """Read a bundle. Raises `NotAnArchive`, `NewerFormat`, `Damaged`."""
    entries = _entries(data)
    if not entries or entries[0][0] != MANIFEST:
        raise NotAnArchive
    text = entries[0][1]
    if len(entries) < 2 or entries[1] != (MANIFEST_SUM, _sum(text)):
        raise Damaged(f"{MANIFEST} is not what was written, or the file ends there")
    manifest = _manifest(text)
    files = dict(entries[2:])
    _check_files(manifest["Files"], files)
    if _tar(entries) != data:
        raise Damaged("it holds more than was written, or its frame was changed")
    return Bundle(manifest, files)


def _entries(data: bytes) -> list[tuple[str, bytes]]:
    found = []
    try:
        with tarfile.open(fileobj=io.BytesIO(data), mode="r:") as tar:
            for member in tar:
                content = tar.extractfile(member) if member.type == tarfile.REGTYPE else None
                if content is None:
                    raise Damaged(f"{member.name!r} is not a file")
                found.append((member.name, content.read()))
    except (tarfile.TarError, ValueError, OSError, EOFError, OverflowError) as error:
        if not found and MANIFEST.encode() not in data[:512]:
            raise NotAnArchive from None
        raise Damaged(f"it is cut off or was changed ({error})") from None
    return found


def _manifest(text: bytes) -> dict[str, Any]:
    try:
        manifest = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise Damaged(f"{MANIFEST}: {error}") from None
    if not isinstance(manifest, dict):
        raise Damaged(f"{MANIFEST} is not an object")
    version = manifest.get("Format")
    if not isinstance(version, int) or version < 1:
        raise Damaged(f"{MANIFEST} names no format")
    if version > FORMAT:
        raise NewerFormat(version, FORMAT)
    if not isinstance(manifest.get("Files"), dict):
        raise Damaged(f"{MANIFEST} lists no files")
    return manifest


def _check_files(listed: Mapping[str, Any], files: Mapping[str, bytes]) -> None:
    for name, facts in listed.items():
        if name not in files:
            raise Damaged(f"{name} is missing")
        wanted = facts.get("SHA256") if isinstance(facts, dict) else None
        if hashlib.sha256(files[name]).hexdigest() != wanted:
            raise Damaged(f"{name} is not what was written")
    if list(listed) != list(files):
        raise Damaged("it holds files that its manifest does not list")


def _sum(text: bytes) -> bytes:
    return f"{hashlib.sha256(text).hexdigest()}  {MANIFEST}\n".encode()


def _tar(entries: Iterable[tuple[str, bytes]]) -> bytes:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w:", format=tarfile.USTAR_FORMAT) as tar:
        for name, data in entries:
            info = tarfile.TarInfo(name)
            info.size, info.mode = len(data), _MODE
            tar.addfile(info, io.BytesIO(data))
    return out.getvalue()
