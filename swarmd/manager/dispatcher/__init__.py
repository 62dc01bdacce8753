"""Sessions, heartbeats, assignments and task reports: see README.md."""

from swarmd.manager.dispatcher.dispatcher import Dispatcher

__all__ = ["Dispatcher"]
