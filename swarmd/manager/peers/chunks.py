"""Cuts snapshots into what one gRPC message may hold (PROTOCOL 3.4). Pure."""

from __future__ import annotations

from collections.abc import Iterator

from swarmd import api
from swarmd.api import raftpb
from swarmd.base.limits import chunk_bytes_max


def requests_for(
    message: raftpb.Message, bytes_max: int = chunk_bytes_max
) -> Iterator[api.StreamRaftMessageRequest]:
    """The requests that carry `message`: one, or for a big snapshot as many as it needs.

    Every piece is the same message with another slice of the data, and none is larger than
    `bytes_max`. What is not a snapshot is never cut: the receiver would refuse it.
    """
    whole = api.StreamRaftMessageRequest(message=message)
    size = whole.ByteSize()
    if message.type != raftpb.MsgSnap or size <= bytes_max:
        yield whole
        return
    data = message.snapshot.data
    # Measured with the full length, so the pieces' own length fields can only be shorter.
    room = bytes_max - (size - len(data))
    if room <= 0:
        yield whole
        return
    del whole
    frame = raftpb.Message()
    frame.CopyFrom(message)
    frame.snapshot.data = b""
    for start in range(0, len(data), room):
        request = api.StreamRaftMessageRequest(message=frame)
        request.message.snapshot.data = data[start : start + room]
        yield request
