"""Keeps a manager's key file under the cluster's unlock key (PROTOCOL 1.7, autolock).

Every manager watches the cluster object. A newer unlock key seals the key file and its
headers anew. Going from open to locked also changes the key of the Raft log, because the old
one lay open on disk: the pending key is noted in the headers first, new records use it, and
it becomes the only one once a snapshot has made all older files unnecessary.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from functools import partial
from typing import Protocol

from swarmd import api
from swarmd.base.aio import Lane
from swarmd.base.entropy import Entropy
from swarmd.cluster.ca import Encryptor, envelope
from swarmd.cluster.ca.errors import CAError
from swarmd.cluster.ca.keyfile import KEK, KeyFile
from swarmd.cluster.model.defaults import MANAGER_SUBSYSTEM
from swarmd.cluster.store import Batch, Store
from swarmd.node.statedir import KeyStore

log = logging.getLogger(__name__)


class RotatingLog(Protocol):
    """The part of `RaftNode` needed here."""

    async def rotate(self, encryptor: Encryptor, done: Callable[[], None]) -> None:
        """Seal with a new key from now on; `done` when no file under the old key is left."""
        ...


def unlock_key_of(cluster: api.Cluster) -> KEK:
    """The key managers' files are to be locked with, empty when autolock is off."""
    key = next(
        (bytes(one.key) for one in cluster.unlock_keys if one.subsystem == MANAGER_SUBSYSTEM), b""
    )
    return KEK(key, cluster.meta.version.index)


class Locker:
    """Runs beside a manager, for as long as it is one."""

    def __init__(
        self,
        keys: KeyStore,
        store: Store,
        raft: RotatingLog,
        lane: Lane,
        entropy: Entropy,
        renew: Callable[[], None],
    ) -> None:
        """`renew` asks for a new certificate: the old key lay open on disk as well."""
        self._keys = keys
        self._store = store
        self._raft = raft
        self._lane = lane
        self._entropy = entropy
        self._renew = renew
        self._stir = asyncio.Event()
        self._rotated = False
        self._rotating = False

    async def run(self) -> None:
        """Follow the cluster object until cancelled."""
        unsubscribe = self._store.subscribe(self._hear)
        try:
            await self._rotate_if_pending()  # a change of key that a crash interrupted
            while True:
                await self._follow()
                await self._stir.wait()
                self._stir.clear()
        finally:
            unsubscribe()

    def _hear(self, batch: Batch) -> None:
        if batch.restored or any(isinstance(event.object, api.Cluster) for event in batch.events):
            self._stir.set()

    async def _follow(self) -> None:
        if self._rotated:
            self._rotated = self._rotating = False
            await self._lane.run(partial(self._keys.update, lambda file: file.finish_rotation()))
            log.info("the raft log is sealed with its new key")
        cluster = self._store.view().cluster()
        if cluster is None:
            return
        wanted = unlock_key_of(cluster)
        before = self._keys.file()
        # Most changes of the cluster object are not about its unlock key: no trip to the lane.
        if before.kek.key != wanted.key:
            await self._take_over(before, wanted)
        await self._rotate_if_pending()

    async def _take_over(self, before: KeyFile, wanted: KEK) -> None:
        try:
            after = await self._lane.run(
                partial(self._keys.update, lambda file: file.with_kek(wanted))
            )
        except CAError as error:
            log.error("the unlock key cannot be taken over: %s", error)
            return
        if after.kek.key != before.kek.key:
            log.info("the key file is %s now", "locked" if after.kek.key else "not locked any more")
            if not before.kek.key:
                self._renew()

    async def _rotate_if_pending(self) -> None:
        held = self._keys.file()
        if self._rotating or not (held.needs_rotation or held.pending_dek):
            return
        file = await self._lane.run(
            partial(self._keys.update, lambda file: file.begin_rotation(self._entropy))
        )
        if file.pending_dek:
            self._rotating = True
            sealer = envelope.secretbox(file.pending_dek, self._entropy)
            await self._raft.rotate(sealer, self._finished)

    def _finished(self) -> None:
        self._rotated = True
        self._stir.set()
