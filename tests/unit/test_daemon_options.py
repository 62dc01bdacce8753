"""Options: command line over environment over file; contradictions are refused."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from swarmd.daemon import config as daemon_config
from swarmd.daemon import options
from swarmd.daemon.config import Config


def resolved(args: list[str], env: dict[str, str] | None = None) -> Config | str:
    """The configuration `args` give, or what was printed instead."""
    found: list[Config] = []

    def keep(settings: Config) -> None:
        found.append(settings)

    with pytest.MonkeyPatch.context() as patch:
        import swarmd.daemon.run

        patch.setattr(swarmd.daemon.run, "main", keep)
        patch.setattr(options.logs, "setup", lambda level, style: None)
        for name in list(os.environ):
            if name.startswith("SWARMD_"):
                patch.delenv(name)
        result = CliRunner().invoke(options.command, args, env=env or {})
    return found[0] if found else f"{result.exit_code}: {result.output}"


def test_defaults_of_root_and_of_a_user(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(daemon_config, "is_root", lambda: True)
    settings = resolved([])
    assert isinstance(settings, Config)
    assert settings.state_dir == Path("/var/lib/swarmd")
    assert settings.hosts == ("unix:///run/swarmd/swarmd.sock",)
    monkeypatch.setattr(daemon_config, "is_root", lambda: False)
    monkeypatch.setenv("XDG_STATE_HOME", "/home/u/state")
    monkeypatch.setenv("XDG_RUNTIME_DIR", "/run/user/7")
    settings = resolved([])
    assert isinstance(settings, Config)
    assert settings.state_dir == Path("/home/u/state/swarmd")
    assert settings.hosts == ("unix:///run/user/7/swarmd/swarmd.sock",)
    monkeypatch.delenv("XDG_RUNTIME_DIR")
    settings = resolved([])
    assert isinstance(settings, Config)
    assert settings.run_dir == Path("/home/u/state/swarmd/run")


def test_command_line_beats_environment_beats_file(tmp_path: Path) -> None:
    file = tmp_path / "swarmd.toml"
    file.write_text('log-level = "error"\nhostname = "filed"\nhost = "unix:///f.sock"\n')
    args = ["--config", str(file)]
    settings = resolved(args)
    assert isinstance(settings, Config)
    assert (settings.log_level, settings.hostname) == ("error", "filed")
    assert settings.hosts == ("unix:///f.sock",)
    settings = resolved(args, {"SWARMD_HOSTNAME": "env", "SWARMD_LOG_LEVEL": "warn"})
    assert isinstance(settings, Config)
    assert (settings.log_level, settings.hostname) == ("warn", "env")
    settings = resolved([*args, "--hostname", "line"], {"SWARMD_HOSTNAME": "env"})
    assert isinstance(settings, Config)
    assert settings.hostname == "line"


REFUSED: list[tuple[list[str], str]] = [
    (["-H", "tcp://127.0.0.1:2375"], "needs --tlscacert, --tlscert and --tlskey"),
    (["-H", "fd://"], "want unix://PATH or tcp://ADDR:PORT"),
    (["-H", "unix://"], "want unix://PATH or tcp://ADDR:PORT"),
    (["--tlscert", "c.pem"], "go together"),
    (["--engine", "docker"], "want auto, none or unix://PATH"),
    (["--discovery-listen", "0.0.0.0:7000"], "needs a certificate and key"),
    (["--discovery-listen", "127.0.0.1:7000", "--discovery-tlscert", "c"], "go together"),
    (["--discovery-tlskey", "k.pem"], "need --discovery-listen"),
    (["--log-level", "loud"], "Invalid value for '--log-level'"),
]


@pytest.mark.parametrize(("args", "text"), REFUSED, ids=lambda value: str(value)[:30])
def test_contradictions_are_usage_errors(args: list[str], text: str) -> None:
    outcome: Any = resolved(args)
    assert isinstance(outcome, str)
    assert outcome.startswith("2: ")
    assert text in " ".join(outcome.split())


def test_unknown_keys_of_the_file_are_not_ignored(tmp_path: Path) -> None:
    file = tmp_path / "swarmd.toml"
    file.write_text("hostnam = 'typo'\n")
    outcome = resolved(["--config", str(file)])
    assert isinstance(outcome, str)
    assert outcome.startswith("2: ")
    assert "unknown key 'hostnam'" in outcome
    file.write_text("not toml at all")
    outcome = resolved(["--config", str(file)])
    assert isinstance(outcome, str)
    assert outcome.startswith("2: ")


def test_the_discovery_service_is_off_unless_asked_for() -> None:
    settings = resolved([])
    assert isinstance(settings, Config)
    assert settings.discovery is None
    for args in (
        ["--discovery-listen", "127.0.0.1:7000"],
        ["--discovery-listen", "0.0.0.0:7000", "--discovery-insecure"],
    ):
        settings = resolved(args)
        assert isinstance(settings, Config)
        assert settings.discovery is not None
        assert settings.discovery.listen == args[1]
