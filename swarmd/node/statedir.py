"""The node's state on disk, laid out as a stock engine's `swarm/` directory (PROTOCOL 1.7, 2.7).

    certificates/swarm-root-ca.crt   0644   trusted roots
    certificates/swarm-node.crt      0644   own certificate chain
    certificates/swarm-node.key      0600   own key; headers hold the raft keys
    state.json                       0600   known managers
    docker-state.json                0600   how this node was started
    raft/, worker/                          other rooms' business

Every file is replaced whole: written beside, synced, renamed, directory synced. Calls block
on the disk: run them in a `Lane`. `KeyStore` is the only writer of certificate and key.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import threading
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path
from typing import Any

from swarmd.base.entropy import Entropy
from swarmd.base.errors import SwarmError
from swarmd.cluster.ca import Identity, KeyPair, chains, identity, keyfile, keys, pem
from swarmd.cluster.ca.errors import CAError, InvalidKEK
from swarmd.cluster.ca.keyfile import KEK, KeyFile
from swarmd.node.remotes import Remote

_PUBLIC, _PRIVATE = 0o644, 0o600
state_bytes_max = 1 << 20  # of any file read here


class StateError(SwarmError):
    """A file of the state directory cannot be read for what it should be."""


@dataclass(frozen=True, slots=True)
class NodeSettings:
    """How this node was started; `docker-state.json`, with the stock names on disk."""

    local_addr: str = ""
    remote_addr: str = ""
    listen_addr: str = ""
    advertise_addr: str = ""
    data_path_addr: str = ""
    default_address_pool: tuple[str, ...] = ()
    subnet_size: int = 0
    data_path_port: int = 0
    join_in_progress: bool = False

    def to_json(self) -> bytes:
        """The file's content, byte for byte as stock writes it."""
        named = {_stock_name(name): value for name, value in asdict(self).items()}
        return json.dumps(named, separators=(",", ":"), ensure_ascii=False).encode()

    @classmethod
    def from_json(cls, text: bytes, origin: Path | str = "docker-state.json") -> NodeSettings:
        """Read the file; unknown names are ignored. Raises `StateError`, which names `origin`."""
        found = _decode(text, dict, origin)
        values: dict[str, Any] = {}
        for field in fields(cls):
            value = found.get(_stock_name(field.name))
            if value is None:
                continue
            if isinstance(field.default, tuple):
                if not isinstance(value, list) or not all(isinstance(v, str) for v in value):
                    raise StateError(f"{origin}: {_stock_name(field.name)} is not a list of texts")
                values[field.name] = tuple(value)
            elif type(value) is not type(field.default):
                raise StateError(
                    f"{origin}: {_stock_name(field.name)} has a value of the wrong kind"
                )
            else:
                values[field.name] = value
        return cls(**values)


def _stock_name(name: str) -> str:
    return "".join(part.capitalize() for part in name.split("_"))


class StateDir:
    """Paths and files of one state directory. Stateless; safe to make several of."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.certificates = path / "certificates"
        self.root_path = self.certificates / "swarm-root-ca.crt"
        self.cert_path = self.certificates / "swarm-node.crt"
        self.key_path = self.certificates / "swarm-node.key"
        self.cert_temp_path = self.certificates / ".swarm-node.crt"
        self.remotes_path = path / "state.json"
        self.settings_path = path / "docker-state.json"
        self.raft = path / "raft"
        self.member_path = path / "raft-member"
        self.raft_gone_path = path / ".raft-gone"
        self.worker = path / "worker"

    def prepare(self) -> None:
        """Make the directory (0700) and the one for certificates (0755)."""
        make_durably(self.path, 0o700)
        make_durably(self.certificates, 0o755)

    def root_pem(self) -> bytes | None:
        """The trusted roots, or None before the node belongs to a cluster."""
        return _read(self.root_path)

    def trusted_roots(self) -> bytes:
        """The roots a node with an identity trusts. Raises `StateError` without good ones."""
        found = self.root_pem()
        if found is None:
            raise StateError(f"{self.root_path} is missing")
        try:
            if not chains.parse(found):
                raise StateError(f"{self.root_path} is damaged: it holds no certificate")
        except CAError as error:
            raise StateError(f"{self.root_path} is damaged: {error}") from error
        return found

    def save_root(self, root_pem: bytes) -> None:
        """Replace the trusted roots."""
        self.prepare()
        write_atomically(self.root_path, root_pem, _PUBLIC)

    def has_identity(self) -> bool:
        """True when there is a key, readable or not."""
        return self.key_path.exists()

    def is_locked(self) -> bool:
        """True when the key can only be read with the unlock key. Raises `CAError`."""
        text = _read(self.key_path)
        with _named(self.key_path):
            return text is not None and keyfile.is_locked(text)

    def remotes(self) -> list[Remote]:
        """The managers known last time; empty when there is no file. Raises `StateError`."""
        text = _read(self.remotes_path)
        return [] if text is None else remotes_from_json(text, self.remotes_path)

    def save_remotes(self, remotes: Sequence[Remote]) -> None:
        """Replace the list of known managers."""
        self.prepare()
        write_atomically(self.remotes_path, remotes_to_json(remotes), _PRIVATE)

    def settings(self) -> NodeSettings | None:
        """How the node was started, or None. Raises `StateError`."""
        text = _read(self.settings_path)
        return None if text is None else NodeSettings.from_json(text, self.settings_path)

    def save_settings(self, settings: NodeSettings) -> None:
        """Replace the settings."""
        self.prepare()
        write_atomically(self.settings_path, settings.to_json(), _PRIVATE)

    def raft_member(self) -> int:
        """The raft id this node has a log for, or had; 0 for none. Raises `StateError`."""
        text = _read(self.member_path)
        try:
            return 0 if text is None else int(text, 16)
        except ValueError:
            raise StateError(f"{self.member_path} is damaged: not a raft id") from None

    def save_raft_member(self, raft_id: int) -> None:
        """Note whose log is kept. Ours, not stock's: a log that is lost must not be forgotten."""
        text = f"{raft_id:x}\n".encode()
        if _read(self.member_path) != text:
            write_atomically(self.member_path, text, _PRIVATE)

    def forget_log(self) -> None:
        """Remove the Raft log at one stroke: what a crash left of it would pass for a damaged
        one, and its node could never be a manager again."""
        self.member_path.unlink(missing_ok=True)
        self.remove_leftovers()
        try:
            os.rename(self.raft, self.raft_gone_path)
            sync_directory(self.path)
        except FileNotFoundError:
            return
        except OSError:  # a file system of its own, say: bit by bit then
            shutil.rmtree(self.raft, ignore_errors=True)
        self.remove_leftovers()

    def remove_leftovers(self) -> None:
        """Remove what a crash left of a log that is gone."""
        shutil.rmtree(self.raft_gone_path, ignore_errors=True)

    def forget(self) -> None:
        """Remove everything, settings first: what is left after a crash starts no node."""
        for path in (self.settings_path, self.remotes_path, self.key_path):
            path.unlink(missing_ok=True)
        if self.path.exists():
            sync_directory(self.path)
            for child in sorted(self.path.iterdir()):
                if child.is_dir() and not child.is_symlink():
                    shutil.rmtree(child)
                else:
                    child.unlink()


def remotes_to_json(remotes: Sequence[Remote]) -> bytes:
    """`state.json` as stock writes it, sorted."""
    entries = [{"node_id": one.node_id, "addr": one.addr} for one in sorted(remotes)]
    return json.dumps(entries, separators=(",", ":"), ensure_ascii=False).encode()


def remotes_from_json(text: bytes, origin: Path | str = "state.json") -> list[Remote]:
    """Read `state.json`. Raises `StateError`, which names `origin`."""
    found = []
    for entry in _decode(text, list, origin):
        if not isinstance(entry, dict):
            raise StateError(f"{origin}: an entry is not an object")
        node_id, addr = entry.get("node_id", ""), entry.get("addr", "")
        if not isinstance(node_id, str) or not isinstance(addr, str):
            raise StateError(f"{origin}: an entry's node_id or addr is not a text")
        if addr:
            found.append(Remote(node_id, addr))
    return found


def _decode(text: bytes, kind: type[Any], name: Path | str) -> Any:
    try:
        found = json.loads(text.decode())
    except (ValueError, RecursionError) as error:
        raise StateError(f"{name} is damaged: {error}") from None
    if found is None:  # Go writes an empty list that was never made as null
        return kind()
    if not isinstance(found, kind):
        raise StateError(f"{name} is damaged: not a {kind.__name__}")
    return found


class KeyStore:
    """The node's certificate and key, opened. One object per state directory.

    Holds the unlock key in memory once the file is open. The lock is for callers in
    different lanes (renewals, raft key rotation); it is never held across an await.
    """

    def __init__(self, state: StateDir, entropy: Entropy, *, fips: bool = False) -> None:
        self.state = state
        self._entropy = entropy
        self._fips = fips
        self._lock = threading.RLock()
        self._file: KeyFile | None = None
        self._cert_pem = b""

    def open(self, kek: bytes = b"") -> Identity:
        """Read certificate and key. Raises `InvalidKEK` for a wrong unlock key, `CAError` or
        `StateError` for damage or absence."""
        with self._lock:
            text = _read(self.state.key_path)
            if text is None:
                raise StateError(f"{self.state.key_path} is missing")
            with _named(self.state.key_path):
                file = keyfile.read(text, kek, fips=self._fips)
            self._cert_pem = self._matching_certificate(file)
            self._file = file
            return self.identity()

    def _matching_certificate(self, file: KeyFile) -> bytes:
        # The certificate is written beside first, then the key, then the certificate is
        # renamed; a crash in between leaves the newer one beside.
        key = keys.load(file.key_pem)
        cert = _read(self.state.cert_path)
        if cert is not None and _fits(cert, key):
            return cert
        beside = _read(self.state.cert_temp_path)
        if beside is not None and _fits(beside, key):
            os.replace(self.state.cert_temp_path, self.state.cert_path)
            sync_directory(self.state.certificates)
            return beside
        raise StateError(
            f"{self.state.cert_path} is missing, damaged, or does not belong to the node's key"
        )

    @property
    def is_open(self) -> bool:
        """True once `open` or `write` succeeded."""
        return self._file is not None

    def file(self) -> KeyFile:
        """The opened key file. Raises `StateError` before `open`."""
        if self._file is None:
            raise StateError("the node's key is not open")
        return self._file

    def identity(self) -> Identity:
        """Who the node is by its certificate. Raises `StateError` before `open`."""
        with self._lock:
            return identity(KeyPair(self._cert_pem, self.file().key_pem))

    def write(self, pair: KeyPair, kek: KEK | None = None) -> Identity:
        """Replace certificate and key together, keeping the raft keys; with `kek` also the
        unlock key, so that the new key never lies open. Returns the new identity."""
        with self._lock:
            new = identity(pair)
            plain = pem.encode(pem.Block("PRIVATE KEY", pem.first(pair.key_pem).der))
            file = replace(self._file or KeyFile(plain, fips=self._fips), key_pem=plain)
            # A manager that was told of a newer unlock key since it asked for this one keeps it:
            # the key would lie open until the cluster object changes again.
            if kek is not None and not (new.is_manager and kek.version < file.kek.version):
                file = file.adopt_kek(kek)
            self.state.prepare()
            cert = pem.normalize(pair.cert_pem)
            write_atomically(self.state.cert_temp_path, cert, _PUBLIC)
            self._write_key(file)
            os.replace(self.state.cert_temp_path, self.state.cert_path)
            sync_directory(self.state.certificates)
            self._cert_pem = cert
            return new

    def update(self, change: Callable[[KeyFile], KeyFile]) -> KeyFile:
        """Rewrite the key file with what `change` makes of it; nothing when that is the same."""
        with self._lock:
            old = self.file()
            new = change(old)
            if new != old:
                self._write_key(new)
            return new

    def _write_key(self, file: KeyFile) -> None:
        write_atomically(self.state.key_path, keyfile.write(file, self._entropy), _PRIVATE)
        self._file = file


@contextlib.contextmanager
def _named(path: Path) -> Iterator[None]:
    """Say which file is damaged; a wrong unlock key is no damage."""
    try:
        yield
    except InvalidKEK:
        raise
    except CAError as error:
        raise StateError(f"{path} is damaged: {error}") from error


def _fits(cert: bytes, key: keys.PrivateKey) -> bool:
    try:
        parsed = chains.parse(cert)
    except CAError:
        return False
    return bool(parsed) and keys.matches(parsed[0], key)


def write_atomically(path: Path, data: bytes, mode: int) -> None:
    """Replace a file so that after a crash either the old or the new content is there.

    Raises `OSError`; the old content is then still in place.
    """
    temp = path.with_name(f".tmp-{path.name}")
    fd = os.open(temp, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC | os.O_NOFOLLOW, mode)
    try:
        with os.fdopen(fd, "wb") as file:
            os.fchmod(fd, mode)  # whatever the umask and a left-over file say
            file.write(data)
            file.flush()
            os.fsync(fd)
        os.replace(temp, path)
    except BaseException:
        with contextlib.suppress(OSError):
            temp.unlink()
        raise
    sync_directory(path.parent)


def make_durably(path: Path, mode: int) -> None:
    """Make a directory, and its parents, that a power cut does not take away with all in it."""
    missing = [each for each in (path, *path.parents) if not each.exists()]
    path.mkdir(mode=mode, parents=True, exist_ok=True)
    for made in reversed(missing):
        with contextlib.suppress(PermissionError):  # a parent that cannot be listed
            sync_directory(made.parent)


def sync_directory(path: Path) -> None:
    """Make renames in a directory survive a power cut."""
    fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


def _read(path: Path) -> bytes | None:
    try:
        with path.open("rb") as file:
            data = file.read(state_bytes_max + 1)
    except FileNotFoundError:
        return None
    if len(data) > state_bytes_max:
        raise StateError(f"{path} is larger than {state_bytes_max} bytes")
    return data
