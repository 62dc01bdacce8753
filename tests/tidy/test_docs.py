"""The documentation keeps its promises: links lead somewhere, commands and settings are real."""

from __future__ import annotations

import re
import shlex
import subprocess
import sys
import tomllib
from pathlib import Path

import click
import pytest
from click.testing import CliRunner

from swarmd.daemon import options
from swarmd.faces.engineapi import texts

ROOT = Path(__file__).resolve().parents[2]
PAGES = sorted([ROOT / "README.md", ROOT / "CHANGELOG.md", *(ROOT / "docs").rglob("*.md")])
LINK = re.compile(r"(?<!`)\[[^\]]+\]\(([^)\s]+)\)")
FENCE = re.compile(r"^```(\w+) tested\n(.*?)^```$", re.M | re.S)
HEADING = re.compile(r"^#+ (.+)$", re.M)
# Nothing answers there: a command that gets as far as connecting was understood.
NOWHERE = "unix:///nonexistent/swarmd.sock"
PEM = "-----BEGIN CERTIFICATE-----\nMAA=\n-----END CERTIFICATE-----\n"
FILES = ("ca.pem", "ca-key.pem", "server.pem", "server-key.pem", "client.pem", "client-key.pem")


def name(path: Path) -> str:
    return str(path.relative_to(ROOT))


def anchors(page: Path) -> set[str]:
    """The anchors of a page's headings, made as forges make them."""
    return {
        re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-")
        for heading in HEADING.findall(page.read_text())
    }


@pytest.mark.parametrize("page", PAGES, ids=name)
def test_every_relative_link_leads_somewhere(page: Path) -> None:
    broken = []
    for target in LINK.findall(page.read_text()):
        if re.match(r"[a-z]+:", target):
            continue
        path, _, anchor = target.partition("#")
        found = (page.parent / path).resolve() if path else page
        if not found.exists() or (anchor and anchor not in anchors(found)):
            broken.append(target)
    assert not broken


def blocks(language: str) -> list[tuple[Path, str]]:
    """The blocks of one language that say they are tested."""
    return [
        (page, text)
        for page in PAGES
        for kind, text in FENCE.findall(page.read_text())
        if kind == language
    ]


COMMANDS = sorted(
    {
        line.removeprefix("$ ")
        for _, text in blocks("console")
        for line in text.splitlines()
        if line.startswith("$ ")
    }
)


def test_there_are_commands_to_try() -> None:
    programs = {command.split()[0] for command in COMMANDS}
    assert programs == {"swarmd", "swarmctl", "docker"}
    assert len(COMMANDS) > 30


@pytest.mark.parametrize("command", [one for one in COMMANDS if not one.startswith("swarmd")])
def test_client_commands_are_understood(command: str, tmp_path: Path) -> None:
    for file in FILES:
        (tmp_path / file).write_text(PEM)
    _, *words = shlex.split(command)
    while words and words[0].startswith("-"):  # the host, and TLS: where, not what
        del words[: 1 if words[0] == "--tlsverify" else 2]
    done = subprocess.run(
        [sys.executable, "-m", "swarmctl", "-H", NOWHERE, *words],
        capture_output=True,
        text=True,
        cwd=tmp_path,
        env={"PYTHONPATH": str(ROOT), "HOME": str(tmp_path)},
        stdin=subprocess.DEVNULL,
        timeout=30,
    )
    assert done.returncode == 1, done.stdout + done.stderr
    assert f"Cannot connect to the daemon at {NOWHERE}" in done.stderr


@pytest.mark.parametrize("command", [one for one in COMMANDS if one.startswith("swarmd")])
def test_daemon_commands_are_understood(command: str) -> None:
    _, *words = shlex.split(command)
    given = options.command.make_context("swarmd", words).params
    given.pop("config")
    assert options.resolve(given).hosts


def test_what_parses_is_not_everything() -> None:
    with pytest.raises(click.UsageError):
        options.command.make_context("swarmd", ["--no-such-flag"])


@pytest.mark.parametrize(("page", "text"), blocks("toml"), ids=lambda value: str(value)[-20:])
def test_settings_files_are_understood(page: Path, text: str, tmp_path: Path) -> None:
    file = tmp_path / "swarmd.toml"
    file.write_text(text)
    assert tomllib.loads(text)
    context = options.command.make_context("swarmd", ["--config", str(file)])
    assert context.params["log_format"] == "json"


def test_every_option_of_the_daemon_is_described() -> None:
    page = (ROOT / "docs/guide/daemon.md").read_text()
    shown = CliRunner().invoke(options.command, ["--help"]).output
    flags = set(re.findall(r"--[a-z-]+", shown)) - {"--version", "--help"}
    assert len(flags) > 12
    assert not {flag for flag in flags if f"`{flag}" not in page}


def test_the_texts_scripts_match_on_are_the_daemons() -> None:
    page = (ROOT / "docs/reference/errors.md").read_text()
    for text in (
        texts.NOT_IN_SWARM_MANAGER_CALL,
        texts.WORKER_MANAGER_CALL,
        texts.MANAGER_PREPARING,
        texts.ALREADY_IN_SWARM,
        texts.NO_SWARM,
        texts.LOCKED,
        texts.LOCKED_LEAVE,
        texts.JOIN_TIMEOUT,
        texts.WRONG_UNLOCK_KEY,
        texts.MALFORMED_UNLOCK_KEY,
        texts.NOT_LOCKED,
        texts.LEAVE_MANAGER,
    ):
        assert text in page, text
