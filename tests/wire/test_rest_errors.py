"""Every recorded refusal of swarm, node, network and CA commands: same status, same message.

Manager errors come from a real Control service over a real store; what only the node behind the
face can find out (a port in use, a remote that refuses) is raised by it as the wiring would.
"""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import pytest

from swarmd import api
from swarmd.base.errors import (
    LOST_LEADERSHIP,
    NO_LEADER,
    InvalidArgument,
    NotLeader,
    Unauthenticated,
    Unavailable,
)
from swarmd.faces.engineapi import LocalState, Refusal, texts
from swarmd.rpc.inprocess import InProcess
from swarmd.rpc.peer import Peer
from tests.harness.controlroom import FakeMember, Room, a_cluster, a_node, a_service_spec
from tests.wire.rest_kit import (
    INACTIVE,
    LOCKED,
    MANAGER,
    NODE_ID,
    ONE_INTERFACE,
    WORKER,
    FakeBackend,
    FakeControl,
    an_interface,
    recorded,
    serving,
)

ROWS = {row["name"]: row for row in recorded("cli/errors.json")}
SE2 = "m3te5tkon42167158gii216by"
NET1 = "g870g5m08i926ww4urp9taen2"
INGRESS = "rhshi4c22goeui4a9hyvivm47"
SERVICE = "nkwjatyd91hktsf925ipwxkhy"
DIAL = (
    'connection error: desc = "transport: Error while dialing dial tcp 10.77.31.2:2377: '
    'connect: connection refused"'
)
FINGERPRINT = "0000009a12965db7dcaa82380c21a207abccc282410a130bf5773a362bcd919b"


def a_room(se2: str = SE2, *, manager: bool = True) -> Room:
    """A cluster of two nodes with a network in use, the routing mesh and predefined ones."""
    room = Room()
    a_cluster(room)
    a_node(room, NODE_ID, manager=True, hostname="se1")
    a_node(room, se2, manager=manager, hostname="se2")
    room.membership.listed = [FakeMember(1, NODE_ID, leader=True)]
    if manager:
        room.membership.listed.append(FakeMember(2, se2))
    for id, name, labels in (
        (NET1, "net1", {}),
        (INGRESS, "ingress", {}),
        ("bridge1", "bridge", {"com.docker.swarm.predefined": "true"}),
    ):
        network = api.Network(id=id)
        network.spec.annotations.name = name
        network.spec.annotations.labels.update(labels)
        network.spec.ingress = name == "ingress"
        network.driver_state.name = "overlay"
        room.add(network)
    spec = a_service_spec("full")
    spec.task.networks.add(target=NET1)
    room.add(api.Service(id=SERVICE, spec=spec))
    return room


def over(room: Room, state: LocalState = MANAGER) -> FakeBackend:
    """A node whose manager calls reach `room`."""
    return FakeBackend(state, InProcess([room.control], Peer(local=True), None))


def failing(error: Exception, *methods: str) -> FakeBackend:
    """A manager whose calls fail."""
    control = FakeControl()
    for method in methods:
        control.answers[f"Control/{method}"] = error
    return FakeBackend(MANAGER, control)


def refusing(name: str, error: Exception, state: LocalState = INACTIVE) -> FakeBackend:
    """A node that refuses one command."""
    return FakeBackend(state, fails={name: error})


def inactive() -> FakeBackend:
    """A node in no swarm."""
    return FakeBackend(INACTIVE)


def alone() -> FakeBackend:
    """The only manager, reachable."""
    room = Room()
    a_cluster(room)
    a_node(room, NODE_ID, manager=True)
    room.membership.listed = [FakeMember(1, NODE_ID, leader=True)]
    return over(room)


def demotion() -> FakeBackend:
    """Two managers, the other one out of reach: without us no quorum is left."""
    room = a_room()
    room.membership.listed = [
        FakeMember(1, NODE_ID, leader=True),
        FakeMember(2, SE2, reachable=False),
    ]
    return over(room)


NODE_SPEC = {"Labels": {}, "Role": "worker", "Availability": "active"}
INIT = {"ListenAddr": "0.0.0.0:2377"}
JOIN = {"ListenAddr": "0.0.0.0:2377", "RemoteAddrs": ["10.77.30.2:2377"], "JoinToken": "x"}
NETWORK = {"Name": "n9", "Driver": "overlay", "CheckDuplicate": True}
TWO_ON_ONE = [an_interface("lo", "127.0.0.1"), an_interface("eth0", "10.77.30.2", "10.88.1.2")]
ON_TWO = [*ONE_INTERFACE, an_interface("veA", "10.89.1.2")]

# Row name -> what the node is, the request body, and for some the interfaces.
CASES: dict[str, tuple[Any, ...]] = {
    "ca-nosw": (inactive, None),
    "jointoken-nosw": (inactive, None),
    "unlockkey-nosw": (inactive, None),
    "update-nosw": (inactive, None),
    "node-ls-nosw": (inactive, None),
    "secret-ls-nosw": (inactive, None),
    "service-ls-nosw": (inactive, None),
    "service-create-nosw": (inactive, {"Name": "x"}),
    "svc-create-worker": (lambda: FakeBackend(WORKER), {"Name": "x"}),
    "node-ls-worker": (lambda: FakeBackend(WORKER), None),
    "locked-node-ls": (lambda: FakeBackend(LOCKED), None),
    "quorum-node-ls": (lambda: failing(NotLeader(NO_LEADER), "ListNodes"), None),
    "quorum-demote": (
        lambda: failing(NotLeader(LOST_LEADERSHIP), "UpdateNode"),
        NODE_SPEC,
    ),
    "quorum-leave": (lambda: failing(NotLeader(NO_LEADER), "ListNodes"), None),
    "demote-last": (demotion, NODE_SPEC),
    "init-again": (lambda: FakeBackend(MANAGER), INIT),
    "init-ifname-ok-no": (lambda: FakeBackend(MANAGER), {**INIT, "AdvertiseAddr": "nosuch0"}),
    "init-ambig": (inactive, INIT, TWO_ON_ONE),
    "init-ambig2": (inactive, INIT, ON_TWO),
    "init-badadv": (inactive, {**INIT, "AdvertiseAddr": "foo"}),
    "init-badadv2": (inactive, {**INIT, "AdvertiseAddr": "0.0.0.0"}),
    "init-ifname": (inactive, {**INIT, "AdvertiseAddr": "nosuch0"}),
    "init-baddp": (inactive, {**INIT, "DataPathPort": 80}),
    "init-badlisten": (inactive, {"ListenAddr": "foo:2377"}),
    "init-badpoolmask": (
        inactive,
        {**INIT, "DefaultAddrPool": ["10.10.0.0/16"], "SubnetSize": 8},
    ),
    "init-badpoolmask2": (
        inactive,
        {**INIT, "DefaultAddrPool": ["10.10.0.0/16"], "SubnetSize": 30},
    ),
    "init-badexpiry": (
        lambda: dataclasses.replace(over(a_room(), INACTIVE), becomes=MANAGER),
        {**INIT, "Spec": {"CAConfig": {"NodeCertExpiry": 600 * 10**9}}},
    ),
    "init-port-in-use": (
        lambda: refusing(
            "init",
            Refusal(
                500,
                "manager stopped: failed to listen on remote API address: "
                "listen tcp 0.0.0.0:2377: bind: address already in use",
            ),
        ),
        INIT,
    ),
    "join-again": (lambda: FakeBackend(WORKER), JOIN),
    "join-badtoken": (lambda: refusing("join", Refusal(500, "invalid join token")), JOIN),
    "join-badtoken2": (lambda: refusing("join", Unavailable(DIAL)), JOIN),
    "join-notoken": (lambda: refusing("join", Unavailable(DIAL)), JOIN),
    "join-blackhole": (lambda: refusing("join", Refusal(503, texts.JOIN_TIMEOUT)), JOIN),
    "join-wrongca": (
        lambda: refusing(
            "join",
            Refusal(500, f"remote CA does not match fingerprint. Expected: {FINGERPRINT}"),
        ),
        JOIN,
    ),
    "join-wrongsecret": (
        lambda: refusing(
            "join", InvalidArgument("A valid join token is necessary to join this cluster")
        ),
        JOIN,
    ),
    "leave-last": (alone, None),
    "leave-mgr2": (lambda: over(a_room()), None),
    "leave-nosw": (inactive, None),
    "leave-nosw-f": (inactive, None),
    "locked-init": (lambda: FakeBackend(LOCKED), INIT),
    "locked-leave": (lambda: FakeBackend(LOCKED), None),
    "locked-unlock-bad": (
        lambda: refusing("unlock", Unauthenticated("no"), LOCKED),
        {"UnlockKey": "SWMKEY-1-sKMggZHmrzOZX5IDjpDfFNbl5h53Uk0MTUGXPMvC+ZY"},
    ),
    "locked-unlock-malformed": (lambda: FakeBackend(LOCKED), {"UnlockKey": "junk"}),
    "net-badsubnet": (
        lambda: over(a_room()),
        {**NETWORK, "IPAM": {"Config": [{"Subnet": "foo"}]}},
    ),
    "net-create-worker": (lambda: FakeBackend(WORKER), NETWORK),
    "net-ingress-2": (lambda: over(a_room()), {**NETWORK, "Name": "ing2", "Ingress": True}),
    "net-inuse": (lambda: over(a_room()), None),
    "net-nosw": (inactive, NETWORK),
    "net-predef": (lambda: over(a_room()), {**NETWORK, "Name": "bridge"}),
    "network-dup": (lambda: over(a_room()), {**NETWORK, "Name": "net1"}),
    "network-nf": (lambda: over(a_room()), None),
    "node-inspect-nf": (lambda: over(a_room()), None),
    "node-rm-notfound": (lambda: over(a_room()), None),
    "node-rm-manager": (lambda: over(a_room()), None),
    "node-rm-manager-f": (lambda: over(a_room()), None),
    "node-rm-ready": (
        lambda: over(a_room("patq0564de1mdd4uzni1u4454", manager=False)),
        None,
    ),
    "node-update-badavail": (lambda: over(a_room()), {**NODE_SPEC, "Availability": "foo"}),
    "node-update-badrole": (lambda: over(a_room()), {**NODE_SPEC, "Role": "foo"}),
}
CONCERNED = ("/swarm", "/nodes", "/networks")


def test_every_recorded_row_that_concerns_us_is_tried() -> None:
    wanted = {
        name
        for name, row in ROWS.items()
        for _, path, _, _ in row.get("http") or []
        # Rows of services that only look a network up first belong to services.
        if path.removeprefix("/v1.41").startswith(CONCERNED) and not name.startswith("svc-")
    }
    assert wanted <= set(CASES), wanted - set(CASES)
    assert len(wanted) > 45


@pytest.mark.parametrize("name", sorted(CASES))
async def test_recorded_refusal(tmp_path: Path, name: str) -> None:
    make, body, *rest_of_case = CASES[name]
    interfaces = rest_of_case[0] if rest_of_case else ONE_INTERFACE
    backend = make()
    ((method, target, status, message),) = ROWS[name]["http"]
    async with serving(tmp_path, backend, interfaces=interfaces) as rest:
        if name == "demote-last":
            version = (await rest.get(f"/v1.41/nodes/{NODE_ID}"))["Version"]["Index"]
            target = target.replace("version=27", f"version={version}")
        reply = await rest.call(method, target, body)
        assert (reply.status, reply.message) == (status, message)
        if name.startswith("init-bad") and name != "init-badexpiry":
            assert backend.asked == []
