"""Which nodes a log subscription concerns, and when it is complete. Pure.

Rules of the reference (manager/logbroker/subscription.go, broker.go; wire/PROTOCOL 7.1). A
subscription that does not follow ends when all its nodes are done; a following one never
ends by itself and gains nodes as tasks appear on them.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from swarmd import api
from swarmd.base.errors import InvalidArgument
from swarmd.cluster.store import View

SELECTOR_MISSING = "log selector must be provided"
SELECTOR_EMPTY = "log selector must not be empty"
INCOMPLETE = (
    "warning: incomplete log stream. some logs could not be retrieved for the following reasons: "
)

RUNNING = api.TaskState.RUNNING
# A node may fail again and again while a client follows; more than this no client is told anyway.
errors_max = 1000


def check_selector(request: api.SubscribeLogsRequest) -> None:
    """Raise InvalidArgument unless the request says whose logs it wants."""
    if not request.HasField("selector"):
        raise InvalidArgument(SELECTOR_MISSING)
    selector = request.selector
    if not (selector.service_ids or selector.task_ids or selector.node_ids):
        raise InvalidArgument(SELECTOR_EMPTY)


@dataclass(slots=True, eq=False)
class Subscription:
    """One client's wish for logs."""

    id: str
    selector: api.LogSelector
    options: api.LogSubscriptionOptions
    # Nodes that still owe something; a following subscription keeps all of its nodes.
    nodes: dict[str, None] = field(default_factory=dict)
    pending_tasks: dict[str, None] = field(default_factory=dict)
    errors: list[str] = field(default_factory=list)
    closed: bool = False

    @property
    def follow(self) -> bool:
        """Whether it goes on until the client has enough."""
        return self.options.follow

    @property
    def complete(self) -> bool:
        """Whether no more can come."""
        return not self.follow and not self.nodes

    def message(self) -> api.SubscriptionMessage:
        """What nodes are told. Options are always set: stock workers rely on it."""
        return api.SubscriptionMessage(
            id=self.id, selector=self.selector, options=self.options, close=self.closed
        )

    def error(self) -> str:
        """Why the logs are not whole; empty when they are."""
        reasons = list(self.errors)
        reasons += [f"task {id} has not been scheduled" for id in self.pending_tasks]
        return INCOMPLETE + ", ".join(reasons) if reasons else ""

    def done(self, node_id: str, error: str = "") -> None:
        """The node has sent all it has, or cannot."""
        if error and len(self.errors) < errors_max:
            self.errors.append(error)
        if not self.follow:
            self.nodes.pop(node_id, None)

    def add(self, task: api.Task) -> bool:
        """Take in a task it concerns; True when a node is new to it."""
        if not task.node_id:
            self.pending_tasks[task.id] = None
            return False
        self.pending_tasks.pop(task.id, None)
        if task.node_id in self.nodes:
            return False
        self.nodes[task.node_id] = None
        return True

    def match(self, view: View) -> None:
        """Find the nodes it concerns now."""
        for node_id in self.selector.node_ids:
            self.nodes[node_id] = None
        for task_id in self.selector.task_ids:
            task = view.get(api.Task, task_id)
            if task is not None:
                self.add(task)
        for service_id in self.selector.service_ids:
            for task in view.by(api.Task, "service", service_id):
                # Only a follower can wait for a task that has not run yet.
                if self.follow or task.status.state >= RUNNING:
                    self.add(task)

    def concerns(self, task: api.Task) -> bool:
        """Whether the client asked for this task's logs."""
        return task.id in self.selector.task_ids or task.service_id in self.selector.service_ids


class Routing:
    """The subscriptions of one leadership and the nodes that listen for them."""

    def __init__(self) -> None:
        self.subscriptions: dict[str, Subscription] = {}
        self._listening: dict[str, int] = {}  # streams per node

    def open(self, id: str, request: api.SubscribeLogsRequest, view: View) -> Subscription:
        """Register a subscription. Nodes that do not listen are done at once, with a reason."""
        check_selector(request)
        subscription = Subscription(id, request.selector, request.options)
        subscription.match(view)
        self.subscriptions[id] = subscription
        for node_id in list(subscription.nodes):
            if node_id not in self._listening:
                subscription.done(node_id, f"node {node_id} is not available")
        return subscription

    def close(self, subscription: Subscription) -> list[str]:
        """End a subscription; returns the nodes to tell."""
        self.subscriptions.pop(subscription.id, None)
        subscription.closed = True
        return list(subscription.nodes)

    def connect(self, node_id: str) -> list[Subscription]:
        """A node listens; returns the subscriptions to send it first."""
        self._listening[node_id] = self._listening.get(node_id, 0) + 1
        return [s for s in self.subscriptions.values() if node_id in s.nodes]

    def disconnect(self, node_id: str) -> list[Subscription]:
        """A stream of a node ended; returns subscriptions that wait for it no longer."""
        self._listening[node_id] -= 1
        if self._listening[node_id]:
            return []
        del self._listening[node_id]
        lost = [s for s in self.subscriptions.values() if node_id in s.nodes]
        for subscription in lost:
            subscription.done(node_id, f"node {node_id} disconnected unexpectedly")
        return lost

    def on_task(self, task: api.Task) -> list[Subscription]:
        """A task was created or changed; returns subscriptions that now concern its node."""
        return [
            s for s in self.subscriptions.values() if s.follow and s.concerns(task) and s.add(task)
        ]
