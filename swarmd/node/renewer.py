"""Renews the node's certificate in time, and when it is told to (PROTOCOL 1.6).

In time: at a random whole minute between half and four fifths of the certificate's life.
Told to: half a second later, so that the leader can settle the role first; if the new
certificate has another role than expected, again and again with a growing pause. An expired
certificate is tried at once, with the same pauses after failures.
"""

from __future__ import annotations

import asyncio
import logging
import math
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from swarmd.base.aio import until
from swarmd.base.backoff import Backoff
from swarmd.base.clock import Clock
from swarmd.base.entropy import Entropy
from swarmd.base.errors import SwarmError
from swarmd.cluster.ca import Identity

log = logging.getLogger(__name__)

EARLIEST, LATEST = 0.5, 0.8
SETTLE_SECONDS = 0.5
UNREADABLE_SECONDS = 300.0
RETRY = Backoff(base_seconds=5.0, cap_seconds=3600.0, factor=2.0, step_seconds=5.0)
# Timers run on the monotonic clock: look at the wall clock again at least this often.
look_again_seconds = 3600.0
# A CA whose clock is far behind ours hands out certificates that look due already.
APART_SECONDS = 60.0
wait_seconds_min = 0.01  # less than the clock can tell apart must not make it spin


def renewal_time(not_before: float, not_after: float, entropy: Entropy) -> float:
    """When to renew a certificate with this validity, wall seconds.

    A random whole minute between 50 and 80 % of its life, so that nodes which joined
    together do not come back together. May lie in the past.
    """
    minutes = (not_after - not_before) / 60
    first, last = math.floor(minutes * EARLIEST), math.floor(minutes * LATEST)
    chosen = first
    if last - first >= 1:
        chosen = min(first + int(entropy.uniform(0, last - first)), last - 1)
    return not_before + chosen * 60.0


@dataclass(frozen=True, slots=True)
class Renewed:
    """What came of an attempt: the new identity, or why there is none."""

    identity: Identity | None
    error: SwarmError | None = None


class Renewer:
    """Keeps one node's certificate young.

    `current` reads the present identity (None when it cannot be read), `renew` gets and
    stores a new one, `report` is told of every attempt that is worth acting on.
    """

    def __init__(
        self,
        current: Callable[[], Identity | None],
        renew: Callable[[], Awaitable[Identity]],
        report: Callable[[Renewed], None],
        clock: Clock,
        entropy: Entropy,
    ) -> None:
        self._current = current
        self._renew = renew
        self._report = report
        self._clock = clock
        self._entropy = entropy
        self._wanted = asyncio.Event()
        self._expected_role = ""
        self._forced = False
        self._failures = 0
        self._earliest = 0.0

    def expect(self, role: str) -> None:
        """Set the role ("swarm-manager", "swarm-worker") a forced renewal should bring."""
        self._expected_role = role

    def renew_now(self) -> None:
        """Renew (nearly) right away instead of at the planned time."""
        self._wanted.set()

    async def run(self, ready: asyncio.Event) -> None:
        """Renew until cancelled."""
        ready.set()
        while True:
            if await self._wait():
                self._forced = True
                await asyncio.sleep(SETTLE_SECONDS)
            await self._attempt()

    async def _wait(self) -> bool:
        """Wait until it is time; True when a renewal is demanded before."""
        due = self._due()
        while (left := due - self._clock.now()) > 0:
            pause = max(min(left, look_again_seconds), wait_seconds_min)
            if await until(self._wanted, pause):
                break
        wanted = self._wanted.is_set()
        self._wanted.clear()
        return wanted

    def _due(self) -> float:
        now = self._clock.now()
        identity = self._current()
        if identity is None:
            self._report(Renewed(None, SwarmError("failed to read certificate expiration")))
            return now + UNREADABLE_SECONDS
        if identity.not_after <= now or self._forced:
            if not self._failures:
                return now if self._forced else max(now, self._earliest)
            return now + RETRY.delay(self._failures - 1, self._entropy)
        if self._failures:  # the planned time is over and the CA did not answer
            pause = RETRY.delay(self._failures - 1, self._entropy)
            latest = max(identity.not_after, now)
            return min(now + pause, latest)
        planned = renewal_time(identity.not_before, identity.not_after, self._entropy)
        return max(planned, self._earliest)

    async def _attempt(self) -> None:
        try:
            identity = await self._renew()
        except SwarmError as error:
            self._failures += 1
            log.warning("could not renew the certificate: %s", error)
            self._report(Renewed(None, error))
            return
        if self._expected_role and identity.role != self._expected_role:
            # Not reported: the node goes on as what it is until the leader has made up its mind.
            self._failures += 1
            log.info(
                "the new certificate is for a %s, not yet a %s", identity.role, self._expected_role
            )
            return
        self._forced, self._failures = False, 0
        self._earliest = self._clock.now() + APART_SECONDS
        self._report(Renewed(identity))
