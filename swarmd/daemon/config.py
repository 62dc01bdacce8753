"""What an operator can set, with defaults for root and for an ordinary user."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, slots=True)
class TLSFiles:
    """Files for the TCP listener of the REST API; mutual TLS or nothing."""

    ca_cert: Path
    cert: Path
    key: Path


@dataclass(frozen=True, slots=True)
class Discovery:
    """The discovery service of Swarm v1; TLS needs both files."""

    listen: str
    cert: Path | None = None
    key: Path | None = None
    insecure: bool = False


@dataclass(frozen=True, slots=True)
class Config:
    """One daemon's settings, already resolved."""

    hosts: tuple[str, ...]
    state_dir: Path
    run_dir: Path
    engine: str = "auto"
    hostname: str = ""
    log_level: str = "info"
    log_format: str = "text"
    pidfile: Path | None = None
    metrics_addr: str = ""
    tls: TLSFiles | None = None
    advertise_addr: str = ""
    discovery: Discovery | None = None


def is_root() -> bool:
    """True when the process may use the system's own directories."""
    return os.geteuid() == 0


def default_state_dir() -> Path:
    """/var/lib/swarmd for root, $XDG_STATE_HOME/swarmd for a user."""
    if is_root():
        return Path("/var/lib/swarmd")
    home = os.environ.get("XDG_STATE_HOME") or str(Path.home() / ".local/state")
    return Path(home) / "swarmd"


def default_run_dir(state_dir: Path) -> Path:
    """/run/swarmd for root, $XDG_RUNTIME_DIR/swarmd for a user (else below the state)."""
    if is_root():
        return Path("/run/swarmd")
    runtime = os.environ.get("XDG_RUNTIME_DIR")
    return Path(runtime) / "swarmd" if runtime else state_dir / "run"
