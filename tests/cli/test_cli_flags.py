"""Flags, usage lines and aliases are those of docker 28.2.2; reading them as it does."""

from __future__ import annotations

from typing import Any

import click
import pytest

from swarmctl.cli import GLOBAL_FLAGS, Root
from swarmctl.command import Command, Group
from swarmctl.errors import UsageError
from swarmctl.flags import Flag, Given, Reader
from swarmctl.kinds import BOOL, DURATION, INT, LIST, NODE_ADDR, STRING, STRINGS, UINT, UINT32
from tests.cli.conftest import Run, recorded

RECORDED = recorded("cli/flags-28.2.2.json")
OURS = sorted(path for path in RECORDED if path.split()[0] in ("swarm", "node", "network"))


def find(path: str) -> Command:
    """The command at `swarm init`, through the tree."""
    here: click.Command | None = Root()
    ctx = click.Context(Root())
    for word in path.split():
        assert isinstance(here, Group)
        here = here.get_command(ctx, word)
    assert isinstance(here, Command)
    return here


def as_recorded(flag: Flag) -> dict[str, Any]:
    entry: dict[str, Any] = {"flag": f"--{flag.flag}"}
    if flag.short:
        entry["short"] = f"-{flag.short}"
    return {**entry, "type": flag.kind.shown or "bool", "default": flag.shown_default or None}


@pytest.mark.parametrize("path", OURS)
def test_flags_usage_and_aliases(path: str) -> None:
    command, wanted = find(path), RECORDED[path]
    flags = sorted(command.flags, key=lambda flag: flag.flag)
    assert [as_recorded(flag) for flag in flags] == wanted["flags"]
    name, _, rest = wanted["usage"].partition(path.split()[-1])
    assert command.usage_line(path) == name + path.split()[-1] + rest
    aliases = [alias.split()[-1] for alias in wanted.get("aliases", [])]
    assert [command.name, *command.aliases] == (aliases or [command.name])


def test_every_recorded_command_of_ours_is_there() -> None:
    assert len(OURS) == 19


@pytest.mark.parametrize("path", ["swarm " + name for name in ("init", "join", "ca", "update")])
def test_shortcuts_are_the_same_commands(path: str) -> None:
    assert find(path) is find(path.split()[1])


def test_aliases_lead_to_the_same_command() -> None:
    assert find("node list") is find("node ls")
    assert find("node remove") is find("node rm")
    assert find("network list") is find("network ls")


FLAGS = (
    Flag("all", BOOL, "", short="a", value=False),
    Flag("brief", BOOL, "", short="b", value=False),
    Flag("name", STRING, "", short="n", value=""),
    Flag("label", LIST, ""),
    Flag("word", STRINGS, ""),
    Flag("count", INT, "", short="c", value=0),
    Flag("size", UINT, "", value=0),
    Flag("port", UINT32, "", value=0),
    Flag("wait", DURATION, "", value=0),
    Flag("at", NODE_ADDR, "", value="0.0.0.0:2377"),
)


@pytest.mark.parametrize(
    ("line", "values", "args"),
    [
        ("", {}, []),
        ("x --all y", {"all": True}, ["x", "y"]),
        ("--all=false", {"all": False}, []),
        ("--all=T x", {"all": True}, ["x"]),
        ("-ab x", {"all": True, "brief": True}, ["x"]),
        ("-abn me x", {"all": True, "brief": True, "name": "me"}, ["x"]),
        ("-nme", {"name": "me"}, []),
        ("-n=me", {"name": "me"}, []),
        ("--name --all", {"name": "--all"}, []),
        ("--name=", {"name": ""}, []),
        ("--label a --label b=c", {"label": ["a", "b=c"]}, []),
        ("--word a,b --word c", {"word": ["a", "b", "c"]}, []),
        ("-- --all -x", {}, ["--all", "-x"]),
        ("- x", {}, ["-", "x"]),
        ("--count -3 -c 0x10", {"count": 16}, []),
        ("--count=-3", {"count": -3}, []),
        ("--size 18446744073709551615", {"size": 2**64 - 1}, []),
        ("--wait 1h30m", {"wait": 5400 * 10**9}, []),
        ("--wait 1.5s", {"wait": 1_500_000_000}, []),
        ("--wait -2us", {"wait": -2000}, []),
        ("--wait 0", {"wait": 0}, []),
        ("--at eth0", {"at": "eth0:2377"}, []),
        ("--at :1000", {"at": "0.0.0.0:1000"}, []),
        ("--at [::1]:9", {"at": "[::1]:9"}, []),
        ("--at tcp://1.2.3.4", {"at": "1.2.3.4:2377"}, []),
    ],
)
def test_reading(line: str, values: dict[str, Any], args: list[str]) -> None:
    given = Reader(FLAGS).read(line.split())
    assert given.args == args
    assert given.changed == set(values)
    assert {name: given[name] for name in values} == values


@pytest.mark.parametrize(
    ("line", "text"),
    [
        ("--nope", "unknown flag: --nope"),
        ("-x", "unknown shorthand flag: 'x' in -x"),
        ("-ax", "unknown shorthand flag: 'x' in -ax"),
        ("--name", "flag needs an argument: --name"),
        ("-n", "flag needs an argument: 'n' in -n"),
        ("-an", "flag needs an argument: 'n' in -an"),
        ("---a", "bad flag syntax: ---a"),
        ("--=a", "bad flag syntax: --=a"),
        (
            "--all=maybe",
            'invalid argument "maybe" for "-a, --all" flag: strconv.ParseBool: parsing "maybe": '
            "invalid syntax",
        ),
        (
            "-c x",
            'invalid argument "x" for "-c, --count" flag: strconv.ParseInt: parsing "x": '
            "invalid syntax",
        ),
        (
            "--size -1",
            'invalid argument "-1" for "--size" flag: strconv.ParseUint: parsing "-1": '
            "invalid syntax",
        ),
        (
            "--port 4294967296",
            'invalid argument "4294967296" for "--port" flag: strconv.ParseUint: parsing '
            '"4294967296": value out of range',
        ),
        (
            "--wait 10",
            'invalid argument "10" for "--wait" flag: time: missing unit in duration "10"',
        ),
        ("--wait x", 'invalid argument "x" for "--wait" flag: time: invalid duration "x"'),
        (
            "--wait 3d",
            'invalid argument "3d" for "--wait" flag: time: unknown unit "d" in duration "3d"',
        ),
        (
            "--at a:b:c",
            'invalid argument "a:b:c" for "--at" flag: invalid bind address format: a:b:c',
        ),
        (
            "--at http://x",
            'invalid argument "http://x" for "--at" flag: invalid proto, expected tcp: http://x',
        ),
    ],
)
def test_refusals(line: str, text: str) -> None:
    with pytest.raises(UsageError) as caught:
        Reader(FLAGS).read(line.split())
    assert caught.value.message == text
    assert caught.value.status == 125


def test_flags_after_the_first_argument_are_left_alone_where_wanted() -> None:
    given: Given = Reader(GLOBAL_FLAGS, interspersed=False).read(["-D", "node", "ls", "--foo"])
    assert given["debug"] is True and given.args == ["node", "ls", "--foo"]


@pytest.mark.parametrize(
    ("words", "first", "status"),
    [
        (["node", "ls", "x"], "swarmctl: 'swarmctl node ls' accepts no arguments", 1),
        (["node", "rm"], "swarmctl: 'swarmctl node rm' requires at least 1 argument", 1),
        (["node", "list", "x"], "swarmctl: 'swarmctl node ls' accepts no arguments", 1),
        (["join"], "swarmctl: 'swarmctl join' requires 1 argument", 1),
        (["swarm", "join", "a", "b"], "swarmctl: 'swarmctl swarm join' requires 1 argument", 1),
        (["node", "nope"], "swarmctl: unknown command: swarmctl node nope", 1),
        (["nope"], "swarmctl: unknown command: swarmctl nope", 1),
        (["--nope"], "unknown flag: --nope", 125),
        (["node", "--nope"], "unknown flag: --nope", 125),
        (["node", "ls", "--nope"], "unknown flag: --nope", 125),
        (["-H"], "flag needs an argument: 'H' in -H", 125),
        (["-H", "a", "-H", "b", "node", "ls"], "Specify only one -H", 1),
        (["-H", "ftp://x", "node", "ls"], "invalid bind address format: ftp://x", 1),
        (
            ["node", "ls", "-f", "x"],
            'invalid argument "x" for "-f, --filter" flag: bad fo',
            125,
        ),
        (["completion", "tcsh"], "unknown shell tcsh: one of bash, fish, zsh", 1),
    ],
)
def test_usage_errors(run: Run, words: list[str], first: str, status: int) -> None:
    ran = run(*words)
    assert ran.out == ""
    assert ran.err.startswith(first)
    assert ran.exit == status


def test_usage_error_in_full(run: Run) -> None:
    assert run("node", "rm").err == (
        "swarmctl: 'swarmctl node rm' requires at least 1 argument\n\n"
        "Usage:  swarmctl node rm [OPTIONS] NODE [NODE...]\n\n"
        "See 'swarmctl node rm --help' for more information\n"
    )


@pytest.mark.parametrize("words", [[], ["node"], ["swarm"], ["network"]])
def test_groups_alone_show_help_on_standard_error(run: Run, words: list[str]) -> None:
    ran = run(*words)
    assert ran.exit == 0 and ran.out == ""
    assert ran.err.startswith("Usage:  swarmctl")
    asked = run(*words, "--help")
    assert (asked.exit, asked.out, asked.err) == (0, ran.err, "")


@pytest.mark.parametrize("path", OURS)
def test_help_names_every_flag(run: Run, path: str) -> None:
    ran = run(*path.split(), "--help")
    assert ran.exit == 0 and ran.err == ""
    assert ran.out.startswith(f"Usage:  swarmctl {RECORDED[path]['usage']}\n\n")
    assert all(f"{flag['flag']}" in ran.out for flag in RECORDED[path]["flags"])
    assert max(len(line) for line in ran.out.splitlines()) <= 84
