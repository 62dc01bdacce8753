"""Every method of the wire tables x every kind of caller, over real TLS.

The expectation is worked out here from services.tsv and the texts operators know
(PROTOCOL 7.6), not from the code under test; an allowed call must reach its handler with
the right identity, a refused one must not reach it at all.
"""

from __future__ import annotations

import csv
import pathlib
from collections.abc import Callable
from dataclasses import dataclass, replace

import pytest

from swarmd.base.errors import Code, SwarmError
from swarmd.rpc.peer import Peer
from swarmd.rpc.tls import Credentials
from tests.wire.rpc_kit import (
    ORGANIZATION,
    Cluster,
    Root,
    Seen,
    call,
    dialled,
    dummy_services,
    serving,
)

FACTS = pathlib.Path(__file__).parent / "facts" / "services.tsv"
DENIED = "Permission denied: "
DIRECT = DENIED + "unauthorized peer role: rpc error: code = PermissionDenied desc = "
FORWARDER = DENIED + "unauthorized forwarder role: rpc error: code = PermissionDenied desc = "
ANYBODY = Peer()
ADDRESS = "192.0.2.7:4711"

Metadata = tuple[tuple[str, str], ...]


@dataclass(frozen=True)
class Rule:
    """One row of the facts."""

    short: str
    roles: tuple[str, ...]

    @property
    def expecting(self) -> str:
        return "[" + " ".join(self.roles) + "]"


def rules() -> list[Rule]:
    lines = [line for line in FACTS.read_text().splitlines() if not line.startswith("#")]
    return [
        Rule(
            f"{row['service'].rpartition('.')[2]}/{row['method']}",
            () if row["roles"] == "insecure" else tuple(row["roles"].split(",")),
        )
        for row in csv.DictReader(lines, delimiter="\t")
    ]


def forwarding(*roles: str, org: str = ORGANIZATION, cn: str = "origin") -> Metadata:
    return (
        ("redirect", ADDRESS),
        ("forwarded_cert", "true"),
        ("forwarded_cert_cn", cn),
        ("forwarded_cert_org", org),
        *(("forwarded_cert_ou", role) for role in roles),
        ("remote_addr", ADDRESS),
    )


Expected = Peer | str
"""Who the handler must see, or the text of the refusal."""


@dataclass(frozen=True)
class Kind:
    """One kind of caller: what it shows, what it says, what must come of it."""

    name: str
    credentials: Callable[[Root], Credentials]
    metadata: Metadata
    expect: Callable[[Rule], Expected]


def _no_certificate(root: Root) -> Credentials:
    return Credentials(root.pem)


def _worker(root: Root) -> Credentials:
    return root.issue("w1", "swarm-worker")


def _manager(root: Root) -> Credentials:
    return root.issue("m1", "swarm-manager")


def _direct(node_id: str, role: str) -> Callable[[Rule], Expected]:
    def expect(rule: Rule) -> Expected:
        if rule.roles and role not in rule.roles:
            return f"{DIRECT}{DENIED}remote certificate not part of OUs: {rule.expecting}"
        return Peer(node_id, ORGANIZATION, (role,))

    return expect


def _if_open(who: Peer, text: Callable[[Rule], str]) -> Callable[[Rule], Expected]:
    """`who` on methods open to anybody, a refusal elsewhere."""
    return lambda rule: text(rule) if rule.roles else who


def _forwarded(role: str) -> Callable[[Rule], Expected]:
    def expect(rule: Rule) -> Expected:
        if rule.roles and role not in rule.roles:
            return f"{DENIED}unauthorized forwarded role, expecting: {rule.expecting}"
        return Peer("origin", ORGANIZATION, (role,), ADDRESS, "m1")

    return expect


def _removed_worker(rule: Rule) -> str:
    if "swarm-worker" not in rule.roles:
        return f"{DIRECT}{DENIED}remote certificate not part of OUs: {rule.expecting}"
    return f"{DIRECT}{DENIED}node gone was removed from swarm"


UNKNOWN_FORWARDED = Peer(remote_addr=ADDRESS, forwarded_by="m1")
KINDS = [
    Kind(
        "no certificate",
        _no_certificate,
        (),
        _if_open(ANYBODY, lambda rule: DIRECT + "no client certificates in request"),
    ),
    Kind("worker", _worker, (), _direct("w1", "swarm-worker")),
    Kind("manager", _manager, (), _direct("m1", "swarm-manager")),
    Kind(
        "removed manager",
        lambda root: root.issue("gone", "swarm-manager"),
        (),
        _if_open(ANYBODY, lambda rule: f"{DIRECT}{DENIED}node gone was removed from swarm"),
    ),
    Kind(
        "removed worker",
        lambda root: root.issue("gone", "swarm-worker"),
        (),
        _if_open(ANYBODY, _removed_worker),
    ),
    Kind(
        "other cluster under the same root",
        lambda root: root.issue("m1", "swarm-manager", organization="elsewhere"),
        (),
        _if_open(
            ANYBODY,
            lambda rule: (
                f"{DIRECT}{DENIED}remote certificate not part of organization: {ORGANIZATION}"
            ),
        ),
    ),
    Kind(
        "certificate without organisation",
        lambda root: root.issue("m1", "swarm-manager", organization=None),
        (),
        _if_open(
            ANYBODY,
            lambda rule: (
                f"{DIRECT}{DENIED}remote certificate not part of organization: {ORGANIZATION}"
            ),
        ),
    ),
    Kind("forwarded worker", _manager, forwarding("swarm-worker"), _forwarded("swarm-worker")),
    Kind("forwarded manager", _manager, forwarding("swarm-manager"), _forwarded("swarm-manager")),
    Kind(
        "forwarded without certificate",
        _manager,
        forwarding(org="", cn=""),
        _if_open(
            UNKNOWN_FORWARDED,
            lambda rule: f"{DENIED}missing information in forwarded request",
        ),
    ),
    Kind(
        "forwarded from another cluster",
        _manager,
        forwarding("swarm-worker", "swarm-manager", org="elsewhere"),
        _if_open(
            UNKNOWN_FORWARDED,
            lambda rule: f"{DENIED}organization mismatch, expecting: {ORGANIZATION}",
        ),
    ),
    Kind(
        "worker posing as forwarding manager",
        _worker,
        forwarding("swarm-manager"),
        _if_open(
            ANYBODY,
            lambda rule: f"{FORWARDER}{DENIED}remote certificate not part of OUs: [swarm-manager]",
        ),
    ),
    Kind(
        "nobody posing as forwarding manager",
        _no_certificate,
        forwarding("swarm-manager"),
        _if_open(ANYBODY, lambda rule: FORWARDER + "no client certificates in request"),
    ),
    Kind(
        "removed manager forwarding",
        lambda root: root.issue("gone", "swarm-manager"),
        forwarding("swarm-manager"),
        _if_open(ANYBODY, lambda rule: f"{FORWARDER}{DENIED}node gone was removed from swarm"),
    ),
    Kind(
        "forwarded_cert not true is a direct call",
        _manager,
        (("forwarded_cert", "yes"), ("forwarded_cert_cn", "origin")),
        _direct("m1", "swarm-manager"),
    ),
    Kind(
        "forwarded_cert twice is a direct call",
        _worker,
        (*forwarding("swarm-manager"), ("forwarded_cert", "true")),
        _direct("w1", "swarm-worker"),
    ),
]


def test_the_matrix_covers_the_whole_wire() -> None:
    assert len(rules()) == 65
    assert {rule.roles for rule in rules()} == {
        (),
        ("swarm-manager",),
        ("swarm-worker", "swarm-manager"),
    }


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.name)
async def test_every_method_decides_as_the_tables_say(kind: Kind) -> None:
    root = Root()
    seen: list[Seen] = []
    wrong: list[str] = []
    async with (
        serving(
            dummy_services(seen),
            root.issue("m0", "swarm-manager"),
            cluster=Cluster(removed={"gone"}),
        ) as server,
        dialled(server, kind.credentials(root)) as caller,
    ):
        for rule in rules():
            seen.clear()
            got: Expected
            try:
                await call(caller, rule.short, timeout=10, metadata=kind.metadata)
                (reached,) = seen
                assert reached.method == rule.short
                got = reached.peer
                if not kind.metadata:
                    assert got.remote_addr.startswith("127.0.0.1:")
                if got.remote_addr.startswith("127.0.0.1:"):
                    got = replace(got, remote_addr="")
            except SwarmError as error:
                assert error.code == Code.PERMISSION_DENIED
                assert not seen
                got = error.message
            wanted = kind.expect(rule)
            if got != wanted:
                wrong.append(f"{rule.short}: got {got}, wanted {wanted}")
    assert not wrong, "\n".join(wrong)


async def test_foreign_certificate_reaches_no_method() -> None:
    root, foreign = Root(), Root()
    seen: list[Seen] = []
    stranger = foreign.issue("m1", "swarm-manager", roots=root.pem)
    async with (
        serving(dummy_services(seen), root.issue("m0", "swarm-manager")) as server,
        dialled(server, stranger) as caller,
    ):
        for rule in rules():
            with pytest.raises(SwarmError) as refused:
                await call(caller, rule.short, timeout=10)
            assert refused.value.code == Code.UNAVAILABLE, rule.short
    assert not seen
