"""Supervised tasks, the blocking lane and bounded channels: the only place tasks are born."""

from swarmd.base.aio.channel import Channel, ChannelClosed
from swarmd.base.aio.lane import Lane
from swarmd.base.aio.tasks import Tasks, cancel_and_wait, first_of, race, until

__all__ = [
    "Channel",
    "ChannelClosed",
    "Lane",
    "Tasks",
    "cancel_and_wait",
    "first_of",
    "race",
    "until",
]
