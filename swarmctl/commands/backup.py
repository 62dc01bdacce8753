"""Backups of the swarm's state: create, verify, restore. The passphrase stays on this side."""

from __future__ import annotations

import contextlib
import os
import sys
import tempfile
from typing import TYPE_CHECKING, Any

from swarmctl.command import ONE, Call, Command
from swarmctl.commands.unlocking import unlock_key
from swarmctl.errors import CliError, only_swarmd
from swarmctl.flags import Flag
from swarmctl.kinds import BOOL, STRING
from swarmctl.options import addresses

if TYPE_CHECKING:
    from swarmd.base.archive import Bundle, Lock

_PRIVATE = 0o600
_secret_bytes_max = 1 << 16


def _secret(path: str) -> str:
    """The first line of a file, "-" for standard input."""
    try:
        if path == "-":
            text = sys.stdin.buffer.read(_secret_bytes_max)
        else:
            with open(path, "rb") as file:
                text = file.read(_secret_bytes_max)
        return text.decode().partition("\n")[0].rstrip("\r")
    except (OSError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or "not a text"
        raise CliError(f"cannot read {path}: {reason}") from None


def _only_one(call: Call, *names: str) -> None:
    given = [name for name in names if name in call.given.changed]
    if len(given) > 1:
        raise CliError(f"--{given[0]} and --{given[1]} exclude each other")


def _lock_for(call: Call) -> Lock | None:
    """What to encrypt with; None for a backup in clear, which must be asked for."""
    from swarmd.base import archive

    _only_one(call, "passphrase-file", "no-encryption")
    if call.given["no-encryption"]:
        return None
    path = call.given["passphrase-file"]
    if path:
        return archive.from_passphrase(_secret(path))
    key = unlock_key(call)
    if not key:
        raise CliError(
            "say how to protect the backup: --passphrase-file FILE, or --no-encryption.\n"
            "It holds every secret of the swarm. With autolock the unlock key is used by default."
        )
    return archive.from_unlock_key(key)


def _create(call: Call) -> None:
    from swarmd.base import archive

    path = call.args[0]
    if os.path.exists(path) and not call.given["force"]:
        raise CliError(f"{path} exists; use --force to replace it")
    with _explained():
        lock = _lock_for(call)
        with only_swarmd("make backups"):
            data = call.client.call("POST", "/swarmd/backup").content()
        bundle = archive.unpack(data)  # what came over the wire is whole
        _write(path, [data] if lock is None else archive.seal(data, lock))
    protection = "not encrypted" if lock is None else f"encrypted with the {lock.kind.value}"
    call.say(f"Backup of swarm {bundle.manifest['ClusterID']} written to {path}, {protection}.")
    if lock is None:
        print("WARNING: whoever reads this file has every secret of the swarm.", file=call.err)


def _write(path: str, pieces: Any) -> None:
    """Write a private file; it appears under its name whole and on disk, or not at all."""
    folder = os.path.dirname(path) or "."
    temporary = ""
    try:
        handle, temporary = tempfile.mkstemp(prefix=".swarmctl-", dir=folder)
        with os.fdopen(handle, "wb") as file:
            os.fchmod(handle, _PRIVATE)
            for piece in pieces:
                file.write(piece)
            file.flush()
            os.fsync(handle)
        os.replace(temporary, path)
        folder_handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
        try:
            os.fsync(folder_handle)
        finally:
            os.close(folder_handle)
    except BaseException as error:
        with contextlib.suppress(OSError):
            os.unlink(temporary)
        if isinstance(error, OSError):
            raise CliError(f"cannot write {path}: {error.strerror or error}") from None
        raise


@contextlib.contextmanager
def _explained() -> Any:
    """Errors of the format as errors of the command."""
    from swarmd.base.archive import ArchiveError

    try:
        yield
    except ArchiveError as error:
        raise CliError(error.message) from None


def _read(call: Call) -> tuple[bytes, Bundle, str]:
    """(bundle's bytes, bundle, how it was protected) of the file in the arguments."""
    from swarmd.base import archive

    path = call.args[0]
    try:
        with open(path, "rb") as file:
            data = file.read()
    except OSError as error:
        raise CliError(f"cannot read {path}: {error.strerror or error}") from None
    _only_one(call, "passphrase-file", "unlock-key-file")
    with _explained():
        kind = archive.kind_of(data)
        if kind is archive.Kind.PASSPHRASE:
            if not call.given["passphrase-file"] and not call.given["unlock-key-file"]:
                raise CliError("the backup is encrypted: give its passphrase by --passphrase-file")
        elif kind is archive.Kind.UNLOCK_KEY and not call.given["unlock-key-file"]:
            raise CliError("the backup is encrypted: give the unlock key by --unlock-key-file")
        if kind is not archive.Kind.CLEAR:
            data = archive.open_sealed(data, _given_lock(call))
        return data, archive.unpack(data), kind.value


def _given_lock(call: Call) -> Lock:
    from swarmd.base import archive

    if call.given["unlock-key-file"]:
        return archive.from_unlock_key(_secret(call.given["unlock-key-file"]))
    return archive.from_passphrase(_secret(call.given["passphrase-file"]))


def _verify(call: Call) -> None:
    _, bundle, protection = _read(call)
    facts = bundle.manifest
    counts = facts.get("Objects") or {}
    objects = ", ".join(f"{count} {kind}" for kind, count in counts.items() if count)
    managers = ", ".join(one.get("Addr", "") for one in facts.get("Managers") or ())
    for label, value in (
        ("Created", facts.get("Created", "")),
        ("Encryption", protection),
        ("ClusterID", facts.get("ClusterID", "")),
        ("NodeID", f"{facts.get('NodeID', '')} ({facts.get('Hostname', '')})"),
        ("Managers", managers),
        ("Raft", f"index {facts.get('RaftIndex', 0)}, term {facts.get('RaftTerm', 0)}"),
        ("Autolock", str(bool(facts.get("Autolock"))).lower()),
        ("Objects", objects),
        ("Made by", f"swarmd {facts.get('SwarmdVersion', '')}"),
    ):
        call.say(f"{label + ':':<12} {value}")
    call.say("The backup is whole.")


def _restore(call: Call) -> None:
    data, bundle, _ = _read(call)
    names = {"listen-addr": "listenAddr", "advertise-addr": "advertiseAddr"}
    names["data-path-addr"] = "dataPathAddr"
    query = {names[flag]: str(call.given[flag]) for flag in names if flag in call.given.changed}
    with only_swarmd("restore backups"):
        node_id = call.client.upload("/swarmd/backup/restore", data, query).json()
    call.say(f"Swarm {bundle.manifest['ClusterID']} restored: node {node_id} is its only manager.")
    call.say(
        "Keep the managers it had before off the network. Workers that know none of this\n"
        "node's addresses, and all other managers, have to leave and join again."
    )


_PASSPHRASE = Flag(
    "passphrase-file", STRING, "File with the passphrase in its first line ('-': stdin)", value=""
)
_UNLOCK_KEY = Flag(
    "unlock-key-file", STRING, "File with the unlock key, if that was used ('-': stdin)", value=""
)
CREATE = Command(
    "create",
    "[OPTIONS] FILE",
    "Write the state of the manager asked to a file, while it runs",
    _create,
    flags=(
        _PASSPHRASE,
        Flag("no-encryption", BOOL, "Write the swarm's secrets in clear", value=False),
        Flag("force", BOOL, "Replace FILE if it exists", short="f", value=False),
    ),
    arity=ONE,
)
VERIFY = Command(
    "verify",
    "[OPTIONS] FILE",
    "Check that a backup is whole and can be opened; needs no daemon",
    _verify,
    flags=(_PASSPHRASE, _UNLOCK_KEY),
    arity=ONE,
)
RESTORE = Command(
    "restore",
    "[OPTIONS] FILE",
    "Begin anew on this node with the state in a backup",
    _restore,
    flags=(*addresses(), _PASSPHRASE, _UNLOCK_KEY),
    arity=ONE,
)
