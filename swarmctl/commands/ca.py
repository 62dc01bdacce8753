"""`swarmctl ca`: show the root certificate, rotate it, watch the rotation."""

from __future__ import annotations

import hashlib
import time
from typing import Any, TextIO

from swarmctl.command import Call, Command
from swarmctl.commands.joining import update_swarm
from swarmctl.errors import CliError
from swarmctl.flags import Flag
from swarmctl.kinds import BOOL, PEM_FILE
from swarmctl.options import CA_FLAGS, merge_ca, quiet
from swarmctl.output import is_terminal

POLL_SECONDS = 0.2
_DIGEST, _CERTS, _ROOTS = (
    "desired root digest",
    "  rotated TLS certificates",
    "  rotated CA certificates",
)
_BAR_WIDTH_MIN = 110


def _ca(call: Call) -> None:
    given = call.given
    swarm = call.client.get("/swarm").json()
    if not given["rotate"]:
        for flag in ("ca-cert", "ca-key", "cert-expiry", "external-ca"):
            if flag in given.changed:
                raise CliError(f"`--{flag}` flag requires the `--rotate` flag to update the CA")
        _show_root(call, swarm)
        return
    _check(call)
    spec = swarm["Spec"]
    cert, key = given["ca-cert"], given["ca-key"]
    merge_ca(spec, given, cert)
    for field, value in (("SigningCACert", cert), ("SigningCAKey", key)):
        spec["CAConfig"].pop(field, None)
        if value:
            spec["CAConfig"][field] = value
    if not cert and not key:
        spec["CAConfig"]["ForceRotate"] = spec["CAConfig"].get("ForceRotate", 0) + 1
    update_swarm(call, swarm)
    if given["detach"]:
        return
    progress = None if given["quiet"] else Progress(call.out)
    if not watch(call, progress):
        return
    if not given["quiet"]:
        _show_root(call, call.client.get("/swarm").json())


def _check(call: Call) -> None:
    given = call.given
    external = bool(given["external-ca"])
    if external and "ca-cert" not in given.changed:
        raise CliError(
            "rotating to an external CA requires the `--ca-cert` flag to specify the external "
            "CA's cert - to add an external CA with the current root CA certificate, use the "
            "`update` command instead"
        )
    if "ca-cert" in given.changed and not external and "ca-key" not in given.changed:
        raise CliError(
            "the --ca-cert flag requires that a --ca-key flag and/or --external-ca flag be "
            "provided as well"
        )


def _show_root(call: Call, swarm: dict[str, Any]) -> None:
    root = str((swarm.get("TLSInfo") or {}).get("TrustRoot") or "")
    if not root:
        raise CliError("No CA information available")
    call.say(root.strip())


class Progress:
    """Three lines about a rotation: redrawn in place on a terminal, else printed as they come.

    Away from a terminal, lines with a bar are left out, as docker does.
    """

    def __init__(self, out: TextIO, columns: int = 0) -> None:
        self._out = out
        self._terminal = is_terminal(out)
        self._columns = columns or self._width()
        self._lines: list[str] = []

    def _width(self) -> int:
        import os

        if not self._terminal:
            return 200
        try:
            return os.get_terminal_size(self._out.fileno()).columns
        except OSError:
            return 200

    def line(self, name: str, text: str, done: int = 0, total: int = 0) -> None:
        """Show one line; with a total, as a bar."""
        bar = self._bar(done, total)
        if not self._terminal:
            if not bar:
                self._out.write(f"{name}: {text}\n")
                self._out.flush()
            return
        if name not in self._lines:
            self._lines.append(name)
            self._out.write("\n")
        up = len(self._lines) - self._lines.index(name)
        self._out.write(f"\x1b[{up}A\x1b[2K\r{name}: {text} {bar}\r\x1b[{up}B")
        self._out.flush()

    def note(self, text: str) -> None:
        """A line of its own."""
        self._out.write(f"{text}\n")
        self._out.flush()

    def _bar(self, done: int, total: int) -> str:
        if total <= 0:
            return ""
        share = min(done * 100 // total // 2, 50)
        box = f"[{'=' * share}>{' ' * (50 - share)}] " if self._columns > _BAR_WIDTH_MIN else ""
        return f"{box}{done}/{total} nodes" if done <= total else f"{box}{done} nodes"


def watch(call: Call, progress: Progress | None) -> bool:
    """Wait until every node has the new root; False when the user stopped watching."""
    if progress is not None:
        progress.line(_DIGEST, "")
        progress.line(_CERTS, "")
        progress.line(_ROOTS, " ")
    done = False
    try:
        while True:
            swarm = call.client.get("/swarm").json()
            if done:
                return True
            done = _report(swarm, call.client.get("/nodes").json(), progress)
            time.sleep(POLL_SECONDS)
    except KeyboardInterrupt:
        if progress is not None and not done:
            progress.note("Operation continuing in background.")
            progress.note("Use `swarmctl ca` to check progress.")
        return False


def _report(swarm: dict[str, Any], nodes: list[dict[str, Any]], progress: Progress | None) -> bool:
    wanted = swarm.get("TLSInfo") or {}
    root = str(wanted.get("TrustRoot") or "")
    infos = [node.get("Description", {}).get("TLSInfo") or {} for node in nodes]
    issuer = ("CertIssuerPublicKey", "CertIssuerSubject")
    certs = sum(all(info.get(key) == wanted.get(key) for key in issuer) for info in infos)
    roots = sum(info.get("TrustRoot", "") == root for info in infos)
    total = len(nodes)
    over = certs == total and not swarm.get("RootRotationInProgress", False)
    if progress is not None:
        progress.line(_DIGEST, "sha256:" + hashlib.sha256(root.encode()).hexdigest())
        progress.line(_CERTS, "", certs, total)
        progress.line(_ROOTS, " ", roots if over else 0, total)
    return over and roots == total


CA = Command(
    "ca",
    "[OPTIONS]",
    "Display and rotate the root CA",
    _ca,
    flags=(
        *CA_FLAGS,
        Flag(
            "ca-cert",
            PEM_FILE,
            "Path to the PEM-formatted root CA certificate to use for the new cluster",
            value="",
        ),
        Flag(
            "ca-key",
            PEM_FILE,
            "Path to the PEM-formatted root CA key to use for the new cluster",
            value="",
        ),
        Flag(
            "detach",
            BOOL,
            "Exit immediately instead of waiting for the root rotation to converge",
            short="d",
            value=False,
        ),
        quiet("Suppress progress output"),
        Flag(
            "rotate",
            BOOL,
            "Rotate the swarm CA - if no certificate or key are provided, "
            "new ones will be generated",
            value=False,
        ),
    ),
)
