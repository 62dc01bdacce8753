"""The leader proxy between real servers: what a follower adds and what the leader believes."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from contextlib import aclosing
from typing import Any

import pytest

from swarmd import api
from swarmd.base.errors import (
    NO_LEADER,
    DeadlineExceeded,
    InvalidArgument,
    NotFound,
    NotLeader,
    PermissionDenied,
    ResourceExhausted,
    SwarmError,
    Unavailable,
)
from swarmd.rpc import leaderproxy, methods
from swarmd.rpc.client import dial, dial_manager
from swarmd.rpc.inprocess import InProcess
from swarmd.rpc.peer import Caller, ClosedHere, Disconnected, Peer
from swarmd.rpc.server import Server
from swarmd.rpc.tls import Credentials
from swarmd.rpc.unarycaller import UnaryCaller
from tests.wire.rpc_kit import (
    HEARTBEAT,
    ORGANIZATION,
    Cluster,
    Root,
    Seen,
    both,
    call,
    dialled,
    dummy_services,
    serving,
)
from tests.wire.test_front_streams import SESSION, Endless


class Follower:
    """Leadership of a manager that follows whoever `caller` is connected to."""

    def __init__(self, caller: Caller | None = None) -> None:
        self.caller = caller
        self.leads = False
        self.asked = 0
        self.trouble: list[SwarmError] = []
        self.doubted = 0
        self.alone = False
        self.doubts: list[SwarmError] = []
        self.waited: list[float] = []

    def is_leader(self) -> bool:
        return self.leads

    def is_certain(self) -> bool:
        return self.leads and self.alone

    async def confirm(self) -> None:
        self.doubted += 1
        if self.doubts:
            raise self.doubts.pop(0)
        if not self.leads:
            raise NotLeader

    async def news(self, seconds: float) -> None:
        self.waited.append(seconds)
        await asyncio.sleep(0.001)

    async def leader_caller(self) -> Caller:
        self.asked += 1
        if self.trouble:
            raise self.trouble.pop(0)
        if self.caller is None:
            raise SwarmError(NO_LEADER)
        return self.caller


class Pair:
    """A leader, a follower, and what reached each of them."""

    def __init__(self) -> None:
        self.root = Root()
        self.at_leader: list[Seen] = []
        self.at_follower: list[Seen] = []
        self.cluster = Cluster()
        self.leadership = Follower()
        self.leader: Server
        self.follower: Server
        self.to_leader: UnaryCaller


@contextlib.asynccontextmanager
async def cluster(overrides: dict[str, Any] | None = None) -> AsyncIterator[Pair]:
    pair = Pair()
    lead = Follower()
    lead.leads = True
    one = pair.root.issue("m1", "swarm-manager")
    two = pair.root.issue("m2", "swarm-manager")
    async with (
        serving(
            dummy_services(pair.at_leader, overrides), one, cluster=pair.cluster, leadership=lead
        ) as pair.leader,
        serving(
            dummy_services(pair.at_follower), two, cluster=pair.cluster, leadership=pair.leadership
        ) as pair.follower,
        dialled(pair.leader, two, dial_manager) as pair.to_leader,
    ):
        pair.leadership.caller = pair.to_leader
        yield pair


PROXIED = [m for m in methods.table().values() if m.proxied]
LOCAL = [m for m in methods.table().values() if not m.proxied]


async def test_each_service_is_answered_where_the_tables_say() -> None:
    async with (
        cluster() as at,
        dialled(at.follower, at.root.issue("m3", "swarm-manager")) as caller,
    ):
        for method in methods.table().values():
            if method.reads:
                # What a follower would show may be old; the words make stock ask the leader.
                with pytest.raises(Unavailable, match="transport is closing"):
                    await call(caller, method.short, timeout=5)
            else:
                await call(caller, method.short, timeout=5)
        assert [seen.method for seen in at.at_leader] == [m.short for m in PROXIED]
        assert [seen.method for seen in at.at_follower] == [m.short for m in LOCAL if not m.reads]
        for seen in at.at_leader:
            assert seen.peer == Peer(
                "m3", ORGANIZATION, ("swarm-manager",), seen.peer.remote_addr, "m2"
            )
            assert seen.peer.remote_addr.startswith("127.0.0.1:")
        assert {seen.peer.forwarded_by for seen in at.at_follower} == {""}


async def test_callers_address_is_the_callers_not_the_followers() -> None:
    async with cluster() as at, dialled(at.follower, at.root.issue("w1")) as caller:
        await call(caller, "Dispatcher/Heartbeat", timeout=5)
        assert at.follower.registry.addresses() == [at.at_leader[0].peer.remote_addr]


async def test_metadata_of_a_forwarded_call() -> None:
    """As stock followers send it, read off the leader's side of the wire."""
    got: list[list[tuple[str, str]]] = []

    class Spy(Caller):
        async def unary(self, method: str, request: Any, **options: Any) -> Any:
            got.append(list(options["metadata"]))
            assert 0 < options["timeout"] <= 5.1, "gRPC rounds deadlines up"
            return methods.find(method).response()

    async with cluster() as at:
        at.leadership.caller = Spy()
        async with dialled(at.follower, at.root.issue("w1")) as caller:
            await call(
                caller,
                "Dispatcher/Heartbeat",
                timeout=5,
                metadata=(("x-note", "kept"), ("remote_addr", "forged")),
            )
        async with dialled(at.follower, Credentials(at.root.pem)) as caller:
            await call(caller, "CA/GetRootCACertificate", timeout=5)
    (worker, nobody) = got
    address = dict(worker)["redirect"]
    assert sorted(worker) == sorted(
        [
            ("x-note", "kept"),
            ("redirect", address),
            ("forwarded_cert", "true"),
            ("forwarded_cert_cn", "w1"),
            ("forwarded_cert_org", ORGANIZATION),
            ("forwarded_cert_ou", "swarm-worker"),
            ("remote_addr", address),
        ]
    )
    assert dict(nobody)["forwarded_cert"] == "true"
    assert dict(nobody)["forwarded_cert_cn"] == dict(nobody)["forwarded_cert_org"] == ""
    assert "forwarded_cert_ou" not in dict(nobody)


async def test_no_certificate_stays_no_certificate_through_a_follower() -> None:
    async with cluster() as at, dialled(at.follower, Credentials(at.root.pem)) as caller:
        await call(caller, "NodeCA/IssueNodeCertificate", timeout=5)
        (seen,) = at.at_leader
        assert seen.peer.node_id == "" and seen.peer.roles == ()
        assert seen.peer.forwarded_by == "m2"
        assert seen.peer.remote_addr.startswith("127.0.0.1:")


async def test_removed_node_is_stopped_at_the_follower() -> None:
    async with cluster() as at, dialled(at.follower, at.root.issue("w1")) as caller:
        at.cluster.removed.add("w1")
        with pytest.raises(PermissionDenied, match="node w1 was removed from swarm"):
            await call(caller, "Dispatcher/Heartbeat", timeout=5)
        assert not at.at_leader


async def test_second_hop_is_refused() -> None:
    async with (
        cluster() as at,
        dialled(at.follower, at.root.issue("m3", "swarm-manager")) as caller,
    ):
        metadata = (
            ("redirect", "10.0.0.9:4711"),
            ("forwarded_cert", "true"),
            ("forwarded_cert_cn", "w1"),
            ("forwarded_cert_org", ORGANIZATION),
            ("forwarded_cert_ou", "swarm-worker"),
        )
        for short in ("Dispatcher/Heartbeat", "Dispatcher/Session", "LogBroker/PublishLogs"):
            with pytest.raises(
                ResourceExhausted,
                match=r"^more than one redirect to leader from: \[10\.0\.0\.9:4711\]$",
            ):
                await call(caller, short, timeout=5, metadata=metadata)
        assert not at.at_leader


async def test_errors_of_the_leader_arrive_unchanged() -> None:
    async def gone(request: Any, peer: Peer) -> Any:
        raise NotFound("node w1 not found")

    async with cluster({"Dispatcher/Heartbeat": gone}) as at:
        async with dialled(at.follower, at.root.issue("w1")) as caller:
            with pytest.raises(NotFound, match=r"^node w1 not found$"):
                await call(caller, "Dispatcher/Heartbeat", timeout=5)
        assert at.leadership.asked == 1, "not retried"


async def test_closing_a_forwarded_stream_ends_it_at_the_leader() -> None:
    house = Endless()
    async with (
        cluster({"Dispatcher/Session": house.session}) as at,
        dialled(at.follower, at.root.issue("w1")) as caller,
    ):
        async with aclosing(caller.server_stream("Dispatcher/Session", SESSION)) as stream:
            assert (await anext(stream)).session_id == "w1"
        await house.until(lambda: house.open == 0)


async def test_forwarded_stream_ends_when_the_leader_goes() -> None:
    house = Endless()
    async with (
        cluster({"Dispatcher/Session": house.session}) as at,
        dialled(at.follower, at.root.issue("w1")) as caller,
    ):
        stream = caller.server_stream("Dispatcher/Session", SESSION)
        await anext(stream)
        at.leader.end_streams(lambda method, peer: True)
        with pytest.raises(Unavailable):
            await anext(stream)


async def test_no_leader_is_said_at_once() -> None:
    async with cluster() as at, dialled(at.follower, at.root.issue("w1")) as caller:
        at.leadership.caller = None
        for short in ("Dispatcher/Heartbeat", "Dispatcher/Session", "LogBroker/PublishLogs"):
            with pytest.raises(SwarmError) as refused:
                await call(caller, short, timeout=5)
            assert refused.value.message == NO_LEADER
            assert refused.value.code == 2


async def test_a_follower_that_became_leader_answers_itself() -> None:
    async with cluster() as at, dialled(at.follower, at.root.issue("w1")) as caller:
        at.leadership.leads = True
        for short in ("Dispatcher/Heartbeat", "Dispatcher/Session", "LogBroker/PublishLogs"):
            await call(caller, short, timeout=5)
        assert not at.at_leader
        assert [seen.peer.forwarded_by for seen in at.at_follower] == ["", "", ""]


async def test_connection_coming_up_is_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(leaderproxy, "CONNECTION_POLL_SECONDS", 0.01)
    async with cluster() as at, dialled(at.follower, at.root.issue("w1")) as caller:
        at.leadership.trouble = [Unavailable("inactive"), Unavailable("inactive")]
        await call(caller, "Dispatcher/Heartbeat", timeout=5)
        assert at.leadership.asked == 3 and len(at.at_leader) == 1


async def test_waiting_for_a_connection_ends_with_the_callers_deadline() -> None:
    async with cluster() as at, dialled(at.follower, at.root.issue("w1")) as caller:
        at.leadership.trouble = [Unavailable("inactive")] * 9
        with pytest.raises(DeadlineExceeded):
            await call(caller, "Dispatcher/Heartbeat", timeout=0.2)


@pytest.mark.parametrize("lost", [Disconnected, ClosedHere])
async def test_unary_calls_are_repeated_once_on_the_next_leader(
    monkeypatch: pytest.MonkeyPatch, lost: type[SwarmError]
) -> None:
    serving_now = api.HealthCheckResponse.ServingStatus.SERVING

    class Dead(Caller):
        async def unary(self, method: str, request: Any, **options: Any) -> Any:
            raise lost('connection error: desc = "transport is closing"')

    class Electing:
        def __init__(self, real: Caller) -> None:
            self.real = real
            self.health = 0

        async def unary(self, method: str, request: Any, **options: Any) -> Any:
            if method == "Health/Check":
                self.health += 1
                if self.health == 1:
                    raise Unavailable("not yet")
                return api.HealthCheckResponse(status=serving_now if self.health > 2 else 0)
            assert self.health == 3
            return await self.real.unary(method, request, **options)

    async with cluster() as at, dialled(at.follower, at.root.issue("w1")) as caller:
        electing = Electing(at.to_leader)
        callers: list[Any] = [Dead(), electing]

        async def next_caller() -> Any:
            return callers.pop(0) if len(callers) > 1 else callers[0]

        monkeypatch.setattr(at.leadership, "leader_caller", next_caller)
        await caller.unary("Dispatcher/Heartbeat", HEARTBEAT, timeout=5)
        assert [seen.peer.node_id for seen in at.at_leader] == ["w1"]
        assert at.leadership.waited == [0.05, 0.1, 0.2], "less and less often"
        callers[:] = [Dead(), Dead()]
        with pytest.raises(DeadlineExceeded):
            await caller.unary("Dispatcher/Heartbeat", HEARTBEAT, timeout=0.3)


@both
async def test_real_lost_connection_counts_as_disconnected(by: Any) -> None:
    root = Root()
    manager = root.issue("m1", "swarm-manager")
    async with serving(dummy_services([]), manager) as server:
        caller = await by(f"127.0.0.1:{server.port}", manager)
        await call(caller, "Health/Check", timeout=5)
    with pytest.raises(Disconnected):
        await call(caller, "Health/Check", timeout=5)
    await caller.close()
    with pytest.raises(Disconnected):
        await by(f"127.0.0.1:{server.port}", manager)


async def test_own_calls_go_on_as_this_managers_own() -> None:
    """The stock control socket: `redirect: @` and nothing forwarded."""
    async with cluster() as at:
        own = InProcess(dummy_services(at.at_follower), Peer("m2", local=True), at.leadership)
        await call(own, "Control/ListNodes", timeout=5)
        await call(own, "Dispatcher/Session", timeout=5)
        await call(own, "LogBroker/PublishLogs", timeout=5)
        await call(own, "Watch/Watch", timeout=5)
        assert [seen.method for seen in at.at_follower] == ["Watch/Watch"]
        assert {(seen.peer.node_id, seen.peer.forwarded_by) for seen in at.at_leader} == {
            ("m2", "")
        }


async def test_own_calls_are_not_handed_on_twice() -> None:
    """A leader that just stopped leading does not send our call round in circles."""
    async with cluster() as at:
        third = Follower(at.to_leader)
        services = dummy_services([])
        async with (
            serving(services, at.root.issue("m3", "swarm-manager"), leadership=third) as between,
            dialled(between, at.root.issue("m2", "swarm-manager")) as to_third,
        ):
            own = InProcess(services, Peer("m2", local=True), Follower(to_third))
            with pytest.raises(ResourceExhausted, match=r"more than one redirect.*\[@\]"):
                await call(own, "Dispatcher/Heartbeat", timeout=5)


async def test_many_calls_at_once_through_a_follower() -> None:
    async with cluster() as at:
        callers = [
            await dial(f"127.0.0.1:{at.follower.port}", at.root.issue(f"w{n}")) for n in range(10)
        ]
        await asyncio.gather(
            *(
                caller.unary("Dispatcher/Heartbeat", HEARTBEAT, timeout=10)
                for caller in callers
                for _ in range(20)
            )
        )
        for caller in callers:
            await caller.close()
        names = sorted(seen.peer.node_id for seen in at.at_leader)
        assert names == sorted(f"w{n}" for n in range(10) for _ in range(20))


# What may be shown of the state


NODES = ("Control/ListNodes", api.ListNodesRequest())


async def test_a_leader_shows_its_state_once_a_quorum_confirmed_it() -> None:
    async with cluster() as at:
        own = InProcess(dummy_services(at.at_follower), Peer("m2", local=True), at.leadership)
        at.leadership.leads = True
        await own.unary(*NODES, timeout=5)
        assert at.leadership.doubted == 1
        await own.unary("Control/UpdateNode", api.UpdateNodeRequest(), timeout=5)
        await own.unary("Dispatcher/Heartbeat", HEARTBEAT, timeout=5)
        assert at.leadership.doubted == 1, "what changes something is confirmed by its commit"
        assert len(at.at_follower) == 3 and not at.at_leader
        at.leadership.alone = True
        await own.unary(*NODES, timeout=5)
        assert at.leadership.doubted == 1 and len(at.at_follower) == 4


async def test_no_quorum_means_no_answer() -> None:
    async with cluster() as at, dialled(at.follower, at.root.issue("m3", "swarm-manager")) as one:
        own = InProcess(dummy_services(at.at_follower), Peer("m2", local=True), at.leadership)
        at.leadership.leads = True
        for caller in (own, one):
            at.leadership.doubts = [NotLeader(NO_LEADER)]
            with pytest.raises(SwarmError, match="does not have a leader"):
                await caller.unary(*NODES, timeout=5)
        assert not at.at_follower and not at.at_leader


async def test_a_leader_deposed_meanwhile_asks_its_successor(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async with cluster({"Health/Check": healthy}) as at:
        own = InProcess(dummy_services(at.at_follower), Peer("m2", local=True), at.leadership)

        async def lose() -> None:
            at.leadership.leads = False
            raise NotLeader

        at.leadership.leads = True
        monkeypatch.setattr(at.leadership, "confirm", lose)
        await own.unary(*NODES, timeout=5)
        assert [seen.method for seen in at.at_leader] == ["Control/ListNodes"]
        assert not at.at_follower


async def test_a_follower_that_asked_a_deposed_leader_asks_the_next_one(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async with cluster({"Health/Check": healthy}) as at:
        between: list[Seen] = []
        deposed = Follower()  # leads no more, which the one who asks does not know
        async with (
            serving(
                dummy_services(between), at.root.issue("m3", "swarm-manager"), leadership=deposed
            ) as third,
            dialled(third, at.root.issue("m2", "swarm-manager")) as to_third,
        ):
            callers = [to_third]

            async def next_caller() -> Any:
                return callers.pop(0) if callers else at.to_leader

            monkeypatch.setattr(at.leadership, "leader_caller", next_caller)
            own = InProcess(dummy_services(at.at_follower), Peer("m2", local=True), at.leadership)
            await own.unary(*NODES, timeout=5)
            assert [seen.method for seen in at.at_leader] == ["Control/ListNodes"]
            assert not between and not at.at_follower


async def healthy(request: Any, peer: Peer) -> Any:
    return api.HealthCheckResponse(status=api.HealthCheckResponse.ServingStatus.SERVING)


@pytest.mark.parametrize(
    ("second", "told"),
    [
        (SwarmError("update out of sequence"), Disconnected),
        (NotFound("node x not found"), Disconnected),
        (InvalidArgument("invalid argument"), InvalidArgument),
    ],
)
async def test_a_repeated_change_that_is_refused_may_have_been_made(
    monkeypatch: pytest.MonkeyPatch, second: SwarmError, told: type[SwarmError]
) -> None:
    """The connection broke after the change was made: its refusal now says nothing."""

    class Once(Caller):
        def __init__(self) -> None:
            self.answers: list[SwarmError] = [Disconnected("connection error"), second]

        async def unary(self, method: str, request: Any, **options: Any) -> Any:
            if method == "Health/Check":
                return await healthy(request, Peer())
            raise self.answers.pop(0)

    own = InProcess(dummy_services([]), Peer("m2", local=True), Follower(Once()))
    with pytest.raises(told):
        await own.unary("Control/UpdateNode", api.UpdateNodeRequest(), timeout=5)
