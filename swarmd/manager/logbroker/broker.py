"""The services Logs and LogBroker: clients ask for logs, nodes listen and publish.

Both run on the leader and share one `Broker`. A client that reads slowly slows the nodes
down (nothing is dropped); a node that does not read its subscriptions is cut off.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncIterator
from typing import Protocol

from swarmd import api
from swarmd.base.aio import Channel, ChannelClosed
from swarmd.base.entropy import Entropy, new_id
from swarmd.base.errors import (
    Code,
    InvalidArgument,
    NotFound,
    PermissionDenied,
    ResourceExhausted,
    SwarmError,
)
from swarmd.cluster.store import Action, Batch, Store
from swarmd.manager.logbroker.routing import Routing, Subscription, check_selector

NOT_RUNNING = "broker is not running"
STOPPED = "context canceled"
MISSING_ID = "missing subscription ID"
UNKNOWN_ID = "unknown subscription ID"
DIFFERENT_IDS = "different subscription IDs in the same session"
TOO_SLOW = "too many log subscriptions wait to be read"

outbox_messages_max = 64
outbox_bytes_max = 1 << 20
subscriptions_waiting_max = 1000


class Peer(Protocol):
    """Who calls: `swarmd.rpc.Peer` fits."""

    @property
    def node_id(self) -> str:
        """The caller's node id, from its certificate."""
        ...


def status_text(error: BaseException) -> str:
    """An error as Go's gRPC prints it: it ends up in what `docker service logs` says."""
    code, text = Code.CANCELLED, STOPPED
    if isinstance(error, SwarmError):
        code, text = error.code, error.message
    words = "Canceled" if code is Code.CANCELLED else code.name.title().replace("_", "")
    return f"rpc error: code = {words} desc = {text}"


class Outbox:
    """Published messages on their way to one client; writers wait while it is full."""

    def __init__(self) -> None:
        self._items: deque[api.SubscribeLogsMessage] = deque()
        self._bytes = 0
        self._changed = asyncio.Event()  # for the reader
        self._room = asyncio.Event()  # for the writers
        self._room.set()
        self.finished = False  # no more is put; the reader empties it
        self.abandoned = False  # nobody reads any more

    @property
    def _full(self) -> bool:
        return len(self._items) >= outbox_messages_max or self._bytes >= outbox_bytes_max

    async def put(self, item: api.SubscribeLogsMessage) -> None:
        """Add a message when there is room; dropped when nobody reads any more."""
        while self._full and not self.abandoned:
            self._room.clear()
            await self._room.wait()
        if not self.abandoned:
            self._items.append(item)
            self._bytes += item.ByteSize()
            self._changed.set()

    async def get(self) -> api.SubscribeLogsMessage | None:
        """The next message; None after the last one."""
        while not self._items:
            if self.finished:
                return None
            self._changed.clear()
            await self._changed.wait()
        self._room.set()
        item = self._items.popleft()
        self._bytes -= item.ByteSize()
        return item

    def finish(self) -> None:
        """No more will be put."""
        self.finished = True
        self._changed.set()

    def abandon(self) -> None:
        """Nobody reads any more: let all writers go."""
        self.abandoned = True
        self._items.clear()
        self._room.set()


class Feed:
    """Subscriptions on their way to one node; each is told once, and once more at its end."""

    def __init__(self) -> None:
        self.channel: Channel[api.SubscriptionMessage] = Channel(subscriptions_waiting_max)
        self._active: set[str] = set()

    def offer(self, subscription: Subscription) -> None:
        """Tell the node about a subscription, or about its end."""
        if subscription.closed:
            self._active.discard(subscription.id)
        elif subscription.id in self._active:
            return
        else:
            self._active.add(subscription.id)
        self.channel.put_nowait(subscription.message())


class _Term:
    """The state of one leadership."""

    def __init__(self, store: Store) -> None:
        self.store = store
        self.routing = Routing()
        self.outboxes: dict[str, Outbox] = {}
        self.feeds: dict[str, dict[int, Feed]] = {}
        self.closed = False

    def tell(self, node_id: str, subscription: Subscription) -> None:
        for feed in self.feeds.get(node_id, {}).values():
            feed.offer(subscription)

    def settle(self, subscription: Subscription) -> None:
        """Let the client go once nothing more can come."""
        if subscription.complete and subscription.id in self.outboxes:
            self.outboxes[subscription.id].finish()

    def on_batch(self, batch: Batch) -> None:
        if not self.routing.subscriptions:
            return
        for event in batch.events:
            task = event.object
            if isinstance(task, api.Task) and event.action is not Action.DELETE:
                for subscription in self.routing.on_task(task):
                    self.tell(task.node_id, subscription)

    def close(self) -> None:
        self.closed = True
        for feeds in self.feeds.values():
            for feed in feeds.values():
                feed.channel.close()
        for outbox in self.outboxes.values():
            outbox.abandon()
            outbox.finish()


class Broker:
    """What the two services share; runs while this manager leads."""

    def __init__(self, store: Store, entropy: Entropy) -> None:
        self._store = store
        self._entropy = entropy
        self._term: _Term | None = None
        self.log_broker = LogBroker(self)
        self.logs = Logs(self)

    async def run(self, ready: asyncio.Event) -> None:
        """Serve during one leadership; cancel when it is lost."""
        term = _Term(self._store)
        unsubscribe = self._store.subscribe(term.on_batch)
        self._term = term
        try:
            ready.set()
            await asyncio.Event().wait()
        finally:
            self._term = None
            unsubscribe()
            term.close()

    def require(self) -> _Term:
        """The state of this leadership. Raises SwarmError when this manager does not lead."""
        if self._term is None:
            raise SwarmError(NOT_RUNNING)
        return self._term

    def new_id(self) -> str:
        """An id for a subscription."""
        return new_id(self._entropy)


class Logs:
    """For clients: managers that want logs."""

    SERVICE = "docker.swarmkit.v1.Logs"

    def __init__(self, broker: Broker) -> None:
        self._broker = broker

    async def subscribe_logs(
        self, request: api.SubscribeLogsRequest, peer: object
    ) -> AsyncIterator[api.SubscribeLogsMessage]:
        """Logs of what the selector names, as the nodes send them.

        Ends with SwarmError (code Unknown) when some could not be had.
        """
        check_selector(request)
        term = self._broker.require()
        outbox = Outbox()
        subscription = term.routing.open(self._broker.new_id(), request, term.store.view())
        term.outboxes[subscription.id] = outbox
        try:
            for node_id in list(subscription.nodes):
                term.tell(node_id, subscription)
            term.settle(subscription)
            while (item := await outbox.get()) is not None:
                yield item
            if term.closed:
                raise SwarmError(STOPPED)
            if error := subscription.error():
                raise SwarmError(error)
        finally:
            del term.outboxes[subscription.id]
            outbox.abandon()
            for node_id in term.routing.close(subscription):
                term.tell(node_id, subscription)


class LogBroker:
    """For nodes: they learn what to send, and send it."""

    SERVICE = "docker.swarmkit.v1.LogBroker"

    def __init__(self, broker: Broker) -> None:
        self._broker = broker

    async def listen_subscriptions(
        self, request: api.ListenSubscriptionsRequest, peer: Peer
    ) -> AsyncIterator[api.SubscriptionMessage]:
        """Subscriptions that concern the caller's node: those there are, then new ones."""
        term = self._broker.require()
        node_id = peer.node_id
        feed = Feed()
        for subscription in term.routing.connect(node_id):
            feed.offer(subscription)
        feeds = term.feeds.setdefault(node_id, {})
        feeds[id(feed)] = feed
        try:
            while True:
                yield await feed.channel.get()
        except ChannelClosed as error:
            if not term.closed:
                raise ResourceExhausted(TOO_SLOW) from error
        finally:
            del feeds[id(feed)]
            if not feeds:
                del term.feeds[node_id]
            for subscription in term.routing.disconnect(node_id):
                term.settle(subscription)

    async def publish_logs(
        self, requests: AsyncIterator[api.PublishLogsMessage], peer: Peer
    ) -> api.PublishLogsResponse:
        """Take one node's logs for one subscription, until it closes or hangs up."""
        term = self._broker.require()
        subscription: Subscription | None = None
        error = ""
        try:
            async for request in requests:
                subscription = _current(term, subscription, request.subscription_id)
                if request.close:
                    break
                _check_sender(request, peer.node_id)
                outbox = term.outboxes.get(subscription.id)
                if outbox is not None:
                    await outbox.put(api.SubscribeLogsMessage(messages=request.messages))
        except BaseException as trouble:
            error = status_text(trouble)
            raise
        finally:
            if subscription is not None:
                subscription.done(peer.node_id, error)
                term.settle(subscription)
        return api.PublishLogsResponse()


def _current(term: _Term, current: Subscription | None, id: str) -> Subscription:
    if not id:
        raise InvalidArgument(MISSING_ID)
    if current is not None:
        if current.id != id:
            raise InvalidArgument(DIFFERENT_IDS)
        return current
    found = term.routing.subscriptions.get(id)
    if found is None:
        raise NotFound(UNKNOWN_ID)
    return found


def _check_sender(request: api.PublishLogsMessage, node_id: str) -> None:
    for message in request.messages:
        received = message.context.node_id
        if received != node_id:
            raise PermissionDenied(f"invalid NodeID: expected={node_id};received={received}")
