"""A node that is removed loses the streams it has open, and nobody else does."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from swarmd import api
from swarmd.base.aio import Tasks
from swarmd.base.clock import SystemClock
from swarmd.base.entropy import SystemEntropy
from swarmd.base.errors import PermissionDenied
from swarmd.cluster.ca import MANAGER, Subject, envelope, load_root, new_key_and_csr, sign
from swarmd.cluster.store import Store, edit
from swarmd.manager.manager import Manager, ManagerConfig
from swarmd.manager.raftnode import Place
from swarmd.manager.removals import Removals
from swarmd.node.founding import Wishes, found
from swarmd.node.statedir import KeyStore, StateDir
from swarmd.rpc.client import dial
from swarmd.rpc.peer import Caller
from swarmd.rpc.tls import Credentials
from tests.wire.rpc_kit import Root, dialled, dummy_services, serving


def a_store() -> Store:
    store = Store(strict=True)
    tx = store.begin(1, 1.0)
    cluster = api.Cluster(id="c")
    cluster.spec.annotations.name = "default"
    cluster.blacklisted_certificates["earlier"].SetInParent()
    tx.create(cluster)
    store.commit(tx, 2)
    return store


def remove(store: Store, node_id: str) -> None:
    tx = store.begin(2, 2.0)
    stored = tx.cluster()
    assert stored is not None
    cluster = edit(stored)
    cluster.blacklisted_certificates[node_id].SetInParent()
    tx.update(cluster)
    store.commit(tx, 3)


async def watch(request: Any, peer: Any) -> AsyncIterator[api.WatchMessage]:
    yield api.WatchMessage()
    await asyncio.Event().wait()


async def begun(caller: Caller) -> AsyncIterator[Any]:
    stream = caller.server_stream("Watch/Watch", api.WatchRequest())
    await asyncio.wait_for(anext(stream), 5)
    return stream


@pytest.mark.parametrize("by_snapshot", [False, True])
async def test_a_removed_manager_sees_no_more_of_the_store(by_snapshot: bool) -> None:
    root, store = Root(), a_store()
    services = dummy_services([], {"Watch/Watch": watch})
    async with (
        serving(services, root.issue("m1", "swarm-manager")) as server,
        dialled(server, root.issue("m2", "swarm-manager")) as removed,
        dialled(server, root.issue("m3", "swarm-manager")) as other,
    ):
        unfollow = Removals(store, server).follow()
        streams = await begun(removed), await begun(other)
        if by_snapshot:
            later = a_store()
            remove(later, "m2")
            store.restore(later.save())
        else:
            remove(store, "m2")
        with pytest.raises(PermissionDenied, match="node m2 was removed from swarm"):
            await asyncio.wait_for(anext(streams[0]), 5)
        assert len(server.calls) == 1
        unfollow()
        remove(store, "m3")
        assert len(server.calls) == 1
        await streams[1].aclose()


async def test_a_manager_that_runs_does_so(tmp_path: Path) -> None:
    clock, entropy = SystemClock(), SystemEntropy()
    state = StateDir(tmp_path / "swarm")
    keys = KeyStore(state, entropy)
    start = found(state, keys, Wishes(), clock, entropy)
    dek = keys.file().dek
    sealer, opener = envelope.secretbox(dek, entropy), envelope.decryptor(dek)
    place = Place(state.raft, start.node_id, "127.0.0.1:0", sealer, opener)
    config = ManagerConfig(place, start.cluster_id, ("127.0.0.1:0",), start)
    pair = keys.identity().pair
    manager = Manager(config, lambda: pair, lambda: start.ca_cert, clock, entropy)
    root = load_root(
        start.ca_cert, clock.now(), signing_cert=start.ca_cert, signing_key=start.ca_key
    )
    key, csr = new_key_and_csr()
    subject = Subject("m2", start.cluster_id, (MANAGER,))
    chain = sign(root, csr, subject, now=clock.now(), entropy=entropy)
    async with Tasks() as tasks:
        tasks.spawn(manager.run(asyncio.Event()), "manager")
        await asyncio.wait_for(manager.leading.wait(), 30)
        await manager.committer.update(lambda tx: tx.create(api.Node(id="m2")))
        shown = Credentials(start.ca_cert, chain, key)
        caller = await dial(f"127.0.0.1:{manager.port}", shown)
        stream = await begun(caller)
        request = api.RemoveNodeRequest(node_id="m2", force=True)
        await manager.caller.unary("Control/RemoveNode", request, timeout=10)
        with pytest.raises(PermissionDenied, match="node m2 was removed from swarm"):
            while True:
                await asyncio.wait_for(anext(stream), 5)
        await caller.close()
