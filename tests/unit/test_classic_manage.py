"""`swarm manage` over small fake engines: lists, placement, forwarding, engines that vanish."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote

from swarmd.base.aio import Tasks
from swarmd.base.clock import ManualClock
from swarmd.base.entropy import SeededEntropy
from swarmd.faces.classic.api.app import ClassicAPI
from swarmd.faces.classic.api.server import ClassicServer
from swarmd.faces.classic.engines.cluster import Cluster
from swarmd.faces.classic.engines.creation import Creator
from swarmd.faces.classic.engines.engine import Settings, Status
from swarmd.faces.classic.engines.watchdog import Watchdog
from swarmd.faces.classic.scheduler.select import Scheduler
from swarmd.faces.http.link import Head, TcpLink
from tests.harness.fakeengine import FakeEngine, fake_engines

BOX = {"Id": "sha256:b0b0", "RepoTags": ["box"], "RepoDigests": [], "Created": 5}


class Members:
    """Discovery that the test writes down."""

    def __init__(self, engines: list[FakeEngine]) -> None:
        self.addresses = [engine.address for engine in engines]

    async def fetch(self) -> list[str]:
        return list(self.addresses)

    async def register(self, address: str) -> None:
        raise AssertionError("a manager registers nobody")


@dataclass
class Managed:
    """A manager over fake engines."""

    cluster: Cluster
    members: Members
    link: TcpLink

    async def ask(self, method: str, target: str, body: Any = None) -> tuple[Head, Any]:
        data = b"" if body is None else json.dumps(body).encode()
        kind = "" if body is None else "application/json"
        head, answer = await self.link.call(method, "/v1.40" + target, data, kind)
        try:
            return head, json.loads(answer)
        except ValueError:
            return head, answer.decode()

    async def names(self, query: str = "") -> list[str]:
        _, lines = await self.ask("GET", f"/containers/json{query}")
        return sorted(name for line in lines for name in line["Names"])


async def until(check: Callable[[], bool]) -> None:
    for _ in range(2000):
        if check():
            return
        await asyncio.sleep(0.01)
    raise TimeoutError("not within 20 s")


@asynccontextmanager
async def managing(*engines: FakeEngine, strategy: str = "spread") -> AsyncIterator[Managed]:
    members, entropy, clock = Members(list(engines)), SeededEntropy(3), ManualClock()
    cluster = Cluster(
        members,
        Scheduler(entropy, strategy),
        clock,
        entropy,
        settings=Settings(0.2, 0.3),
        heartbeat_seconds=0.1,
    )
    creator = Creator(cluster)
    server = ClassicServer(ClassicAPI(cluster, creator, cors=True), ["127.0.0.1:0"], None)
    ready, watching, running = asyncio.Event(), asyncio.Event(), asyncio.Event()
    async with Tasks() as tasks:
        tasks.spawn(server.run(ready), "server")
        tasks.spawn(Watchdog(cluster, creator).run(watching), "watchdog")
        tasks.spawn(cluster.run(running), "cluster")
        await ready.wait()
        await until(lambda: len(cluster.members()) == len(engines))
        await until(lambda: all(engine.listeners for engine in engines))
        yield Managed(cluster, members, TcpLink(f"127.0.0.1:{server.ports[0]}", "manager", None))


async def test_lists_show_nodes_in_front_of_names() -> None:
    async with fake_engines("n1", "n2") as (one, two):
        one.add("web")
        two.add("db")
        one.images, two.images = [BOX], [{**BOX, "RepoTags": ["box", "other:1"]}]
        bridges = [{"Id": f"net{n}", "Name": "bridge", "Scope": "local"} for n in (1, 2)]
        overlay = {"Id": "over", "Name": "mesh", "Scope": "global", "Driver": "overlay"}
        one.networks, two.networks = [bridges[0], overlay], [bridges[1], overlay]
        two.volumes = {"data": {"Name": "data", "Driver": "local"}}
        async with managing(one, two) as it:
            _, lines = await it.ask("GET", "/containers/json")
            assert await it.names() == ["/n1/web", "/n2/db"]
            assert lines[0]["Ports"][0]["IP"] == "127.0.0.1"
            assert lines[0]["Status"].startswith("Up 3 minutes")
            _, images = await it.ask("GET", "/images/json")
            assert [image["RepoTags"] for image in images] == [["box", "other:1"]]
            _, networks = await it.ask("GET", "/networks")
            assert sorted(n["Name"] for n in networks) == ["mesh", "n1/bridge", "n2/bridge"]
            _, volumes = await it.ask("GET", "/volumes")
            assert [v["Name"] for v in volumes["Volumes"]] == ["n2/data"]
            for name, found in (("n1/bridge", "net1"), ("mesh", "over"), ("net2", "net2")):
                assert (await it.ask("GET", f"/networks/{name}"))[1]["Id"] == found
            assert (await it.ask("GET", "/networks/bridge"))[0].status == 404  # which one?


async def test_filters_of_lists() -> None:
    async with fake_engines("n1", "n2") as (one, two):
        one.add("web", Labels={"tier": "front"})
        stopped = two.add("db")
        two.containers[stopped]["State"] = {
            "Running": False,
            "StartedAt": "2023-11-14T20:00:00Z",
            "FinishedAt": "2023-11-14T21:00:00Z",
            "ExitCode": 3,
        }
        cases = [
            ({}, ["/n1/web"]),
            ({"node": ["n1"]}, ["/n1/web"]),
            ({"node": {"n2": True}}, []),
            ({"status": ["exited"]}, ["/n2/db"]),
            ({"status": ["exited"], "exited": ["3"]}, ["/n2/db"]),
            ({"status": ["exited"], "exited": ["0"]}, []),
            ({"label": ["tier=front"]}, ["/n1/web"]),
            ({"label": ["tier=back"]}, []),
            ({"name": ["^w"]}, ["/n1/web"]),
            ({"health": ["none"]}, ["/n1/web"]),
            ({"network": ["x"]}, []),
            ({"volume": ["x"]}, []),
        ]
        async with managing(one, two) as it:
            for filters, wanted in cases:
                query = f"?filters={quote(json.dumps(filters))}"
                assert await it.names(query) == wanted, filters
            assert await it.names("?all=1") == ["/n1/web", "/n2/db"]
            assert await it.names("?limit=1") != []
            _, lines = await it.ask("GET", "/containers/json?all=1&limit=0")
            assert "Exited (3) About an hour ago" in [line["Status"] for line in lines]
            for wrong in ("{", "[]", '{"exited":["x"]}', '{"a":1}'):
                head, _ = await it.ask("GET", f"/containers/json?filters={quote(wrong)}")
                assert head.status == 400, wrong


async def test_a_container_goes_where_the_scheduler_says_and_is_seen_at_once() -> None:
    async with fake_engines("n1", "n2") as (one, two):
        one.images = two.images = [BOX]
        two.labels = ["storage=ssd"]
        async with managing(one, two) as it:
            body = {"Image": "box", "Env": ["A=1", "constraint:storage==ssd"]}
            head, made = await it.ask("POST", "/containers/create?name=fast", body)
            assert head.status == 201
            assert made["Id"] in two.containers
            config = two.containers[made["Id"]]["Config"]
            assert config["Env"] == ["A=1"]
            assert config["Labels"]["com.docker.swarm.constraints"] == '["storage==ssd"]'
            assert len(config["Labels"]["com.docker.swarm.id"]) == 64
            assert await it.names() == ["/n2/fast"]
            head, text = await it.ask("POST", "/containers/create?name=fast", body)
            assert head.status == 409
            assert text.startswith("Conflict: The name fast is already assigned.")
            _, info = await it.ask("GET", "/containers/fast/json")
            assert info["Node"]["Name"] == "n2"
            assert info["Node"]["Addr"] == two.address
            assert info["NetworkSettings"]["Ports"]["80/tcp"][0]["HostIp"] == "127.0.0.1"
            body = {"Image": "box", "Env": ["constraint:storage==tape"]}
            head, text = await it.ask("POST", "/containers/create", body)
            assert head.status == 500
            assert "[storage==tape]" in text


async def test_two_requests_at_once_do_not_get_the_same_place() -> None:
    async with fake_engines("n1", "n2") as (one, two):
        one.images = two.images = [BOX]
        async with managing(one, two, strategy="binpack") as it:
            ports = {"80/tcp": [{"HostPort": "8080"}]}
            body = {"Image": "box", "HostConfig": {"PortBindings": ports}}
            outcomes = await asyncio.gather(
                *(it.ask("POST", f"/containers/create?name=c{n}", body) for n in range(3))
            )
            assert sorted(head.status for head, _ in outcomes) == [201, 201, 500]
            assert len(one.containers) == len(two.containers) == 1
            same = await asyncio.gather(
                *(it.ask("POST", "/containers/create?name=x", {"Image": "box"}) for _ in range(2))
            )
            assert sorted(head.status for head, _ in same) == [201, 409]


async def test_an_image_is_pulled_or_the_container_goes_to_where_it_is() -> None:
    async with fake_engines("n1", "n2") as (one, two):
        two.images = [BOX]
        two.add("busy")  # spread would take n1
        async with managing(one, two) as it:
            head, made = await it.ask("POST", "/containers/create?name=a", {"Image": "box"})
            assert head.status == 201
            assert made["Id"] in two.containers
            assert ("POST", "/images/create") in one.asked
            head, text = await it.ask("POST", "/containers/create", {"Image": "none"})
            assert (head.status, "no such host" in text) == (404, True)
            one.pullable = True
            head, made = await it.ask("POST", "/containers/create", {"Image": "new:latest"})
            assert head.status == 201
            assert made["Id"] in one.containers


async def test_commands_go_to_the_engine_that_has_the_container() -> None:
    async with fake_engines("n1", "n2") as (one, two):
        web = one.add("web")
        two.add("db")
        async with managing(one, two) as it:
            assert (await it.ask("GET", "/containers/n2%2Fdb/logs?stdout=1"))[1] == "logged by n2"
            _, made = await it.ask("POST", "/containers/db/exec", {"Cmd": ["ls"]})
            _, started = await it.ask("POST", f"/exec/{made['Id']}/start", {"Detach": True})
            assert started == {"exec": "exec-n2", "on": "n2"}
            assert (await it.ask("POST", "/containers/db/exec", {}))[0].status == 400
            assert (await it.ask("POST", "/exec/nope/start", {}))[0].status == 404
            assert (await it.ask("POST", "/containers/web/stop"))[0].status == 204
            assert await it.names() == ["/n2/db"]
            head, _ = await it.ask("POST", "/containers/web/rename?name=db")
            assert head.status == 409
            assert (await it.ask("POST", "/containers/web/rename?name=www"))[0].status == 204
            assert await it.names("?all=1") == ["/n1/www", "/n2/db"]
            head, answer = await it.ask("POST", "/containers/www/pause")
            assert (head.status, answer) == (409, {"message": "refused by the engine"})
            assert (await it.ask("DELETE", f"/containers/{web[:12]}"))[0].status == 204
            assert await it.names("?all=1") == ["/n2/db"]
            head, text = await it.ask("GET", "/containers/www/json")
            assert (head.status, text) == (404, "No such container: www\n")
            assert (await it.ask("GET", "/nothing/here"))[0].status == 404
            assert (await it.ask("GET", "/images/viz"))[0].status == 501


async def test_volumes_are_made_on_one_node_or_all() -> None:
    async with fake_engines("n1", "n2") as (one, two), managing(one, two) as it:
        assert (await it.ask("POST", "/volumes/create", {"Name": "n2/a"}))[0].status == 201
        assert (await it.ask("POST", "/volumes/create", {"Name": "b"}))[0].status == 201
        assert (sorted(one.volumes), sorted(two.volumes)) == (["b"], ["a", "b"])
        assert (await it.ask("GET", "/volumes/n2%2Fa"))[1]["Name"] == "a"
        assert (await it.ask("DELETE", "/volumes/b"))[0].status == 204
        assert (await it.ask("DELETE", "/volumes/b"))[0].status == 404
        assert (sorted(one.volumes), sorted(two.volumes)) == ([], ["a"])


async def test_a_pull_goes_to_all_and_says_how_each_fared() -> None:
    async with fake_engines("n1", "n2") as (one, two):
        one.pullable = True
        async with managing(one, two) as it:
            head, text = await it.ask("POST", "/images/create?fromImage=box&tag=1")
            assert head.status == 200
            lines = [json.loads(line) for line in text.splitlines()]
            told = {(line.get("id"), line.get("status")) for line in lines}
            assert ("n1", "Pulling box:1... : Downloading") in told
            assert ("n2", "Pulling box:1... : no such host") in told
            assert lines[-1]["error"] == "no such host"


async def test_info_lists_the_nodes() -> None:
    async with fake_engines("n1") as (one,):
        one.labels = ["zone=far", "node=ignored"]
        one.add("web", HostConfig={"Memory": 1 << 30, "CpuShares": 512})
        async with managing(one) as it:
            _, info = await it.ask("GET", "/info")
            status = dict(map(tuple, info["SystemStatus"]))
            assert status["Strategy"] == "spread"
            assert status["Nodes"] == "1"
            assert status[" n1"] == one.address
            assert status["  └ Status"] == "Healthy"
            assert status["  └ Containers"] == "1 (1 Running, 0 Paused, 0 Stopped)"
            assert status["  └ Reserved CPUs"] == "2 / 4"
            assert status["  └ Reserved Memory"] == "1GiB / 4.2GiB"
            assert status["  └ Labels"] == "storagedriver=overlay2, zone=far"
            assert info["ContainersRunning"] == 1
            head, _ = await it.ask("GET", "/_ping")
            assert head.header("Api-Version") == "1.40"
            assert (await it.ask("GET", "/version"))[1]["ApiVersion"] == "1.40"


async def test_events_of_all_engines_carry_their_node() -> None:
    async with fake_engines("n1", "n2") as (one, two), managing(one, two) as it:
        before = it.cluster.listeners
        connection = await it.link.open()
        connection.send_head("GET", "/v1.40/events", [("Host", "x")])
        head = await connection.head()
        await until(lambda: it.cluster.listeners == before + 1)
        made = two.add("late")
        await two.tell("container", "start", made)
        async with asyncio.timeout(10):
            async for piece in connection.body(head):
                if piece.strip():
                    break
        event = json.loads(piece)
        assert event["node"]["Name"] == "n2"
        assert event["Actor"]["Attributes"]["node.addr"] == two.address
        assert await it.names() == ["/n2/late"]  # the picture was refreshed first
        await connection.close()
        await until(lambda: it.cluster.listeners == before)


async def test_an_engine_fails_comes_back_and_leaves() -> None:
    async with fake_engines("n1", "n2") as (one, two):
        one.images = two.images = [BOX]
        two.add("db")
        async with managing(one, two) as it:
            engine = it.cluster.engines[two.address]
            await two.stop()
            await until(lambda: engine.status is Status.UNHEALTHY)
            assert await it.names() == []
            _, lines = await it.ask("GET", "/containers/json?all=1")
            assert [line["Status"] for line in lines] == ["Host Down"]
            head, text = await it.ask("GET", "/containers/db/json")
            assert (head.status, text) == (500, "Container db running on unhealthy node n2\n")
            _, made = await it.ask("POST", "/containers/create?name=a", {"Image": "box"})
            assert made["Id"] in one.containers
            await two.start()
            await until(lambda: engine.healthy)
            await until(lambda: "db" in str(engine.picture.containers))
            it.members.addresses.remove(two.address)
            await until(lambda: two.address not in it.cluster.engines)
            assert engine.status is Status.DISCONNECTED
            assert await it.names("?all=1") == ["/n1/a"]


async def test_a_container_that_asked_for_it_outlives_its_node_once() -> None:
    async with fake_engines("n1", "n2") as (one, two):
        one.images = two.images = [BOX]
        async with managing(one, two) as it:
            for name, env in (("moves", ["reschedule:on-node-failure"]), ("stays", [])):
                wanted = {"Image": "box", "Env": ["constraint:node==~n2", *env]}
                await it.ask("POST", f"/containers/create?name={name}", wanted)
            assert len(two.containers) == 2
            await two.stop()
            await until(lambda: len(one.containers) == 1)
            await until(lambda: "/n1/moves" in str(one.asked) or bool(one.containers))
            (kept,) = one.containers.values()
            assert kept["Name"] == "/moves"
            assert kept["Config"]["Labels"]["com.docker.swarm.id"]
            await two.start()
            await until(lambda: [c["Name"] for c in two.containers.values()] == ["/stays"])
            assert len(one.containers) == 1


async def test_a_manager_is_no_engine() -> None:
    async with fake_engines("n1") as (one,), managing(one) as it:
        itself = it.link.address
        it.members.addresses.append(itself)
        await until(lambda: itself in it.cluster.engines)
        await until(lambda: "make sure" in it.cluster.engines[itself].error)
        assert it.cluster.engines[itself].status is Status.PENDING


async def test_cors_headers_are_sent_when_asked_for() -> None:
    async with fake_engines("n1") as (one,), managing(one) as it:
        head, _ = await it.ask("GET", "/info")
        assert head.header("Access-Control-Allow-Origin") == "*"
        assert (await it.ask("OPTIONS", "/info"))[0].status == 200
