"""One unary call of ours as its connection sees it: what to send, what came back, who waits."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

from swarmd.base.errors import DeadlineExceeded, Internal, SwarmError, error_for
from swarmd.rpc.http2 import response, wire
from swarmd.rpc.http2.headers import Header
from swarmd.rpc.http2.messages import Messages
from swarmd.rpc.http2.request import Refused
from swarmd.rpc.http2.response import Told
from swarmd.rpc.http2.stream import Stream
from swarmd.rpc.http2.wire import StreamFault

if TYPE_CHECKING:
    from swarmd.rpc.http2.outgoing import Outgoing

DEADLINE = "context deadline exceeded"


class Slot(Protocol):
    """Where the outcome goes; an `asyncio.Future`, of which nothing more is known here."""

    def done(self) -> bool:
        """True when nobody waits (any more)."""
        ...

    def set_result(self, result: bytes | None, /) -> None:
        """The answer; None when there was none, although the call ended well."""
        ...

    def set_exception(self, exception: SwarmError, /) -> None:
        """The call failed."""
        ...


class Exchange(Stream):
    """A call under way, or one that waits for its turn: then it has no `id` yet.

    It listens to itself until it is over.
    """

    __slots__ = (
        "_begun",
        "_message",
        "_messages",
        "_outgoing",
        "_slot",
        "block",
        "body",
        "deadline",
    )

    def __init__(
        self, outgoing: Outgoing, slot: Slot, block: bytes, body: bytes, deadline: float | None
    ) -> None:
        super().__init__(outgoing, outgoing.sender, 0, outgoing.window_bytes, 0)
        self.listener = self
        self.block = block
        self.body = body
        """What has to be sent, until it is."""
        self.deadline = deadline
        self._outgoing = outgoing
        self._slot: Slot | None = slot
        self._begun = False
        self._messages = Messages(outgoing.answer_bytes_max)
        self._message: bytes | None = None

    # For whoever asks.

    def withdraw(self) -> None:
        """Nobody waits for the answer any more; nothing happens if there is one."""
        if self._slot is not None:
            self._slot = None
            self._outgoing.withdraw(self)

    def expire(self) -> None:
        """The time for the answer is over."""
        self._refuse(DeadlineExceeded(DEADLINE))

    # For the connection.

    def answered(self, fields: list[Header] | None, ended: bool) -> None:
        """A header block of the answer. Raises `StreamFault`."""
        self.ended = ended
        if ended and self._begun and fields == response.USUAL_TAIL:
            self._finish(None)
        elif not ended and not self._begun and fields == response.USUAL_HEAD:
            self._begun = True
        else:
            try:
                self._unusual(Told(fields, first=not self._begun), ended)
            except SwarmError as error:
                self._refuse(error)

    def received(self, data: bytes, ended: bool) -> None:
        """Data of the answer. Raises `StreamFault`."""
        if not self._begun:
            raise StreamFault(wire.PROTOCOL_ERROR, "data before headers")
        if data:
            try:
                found = self._messages.feed(data)
            except Refused as refusal:
                self._refuse(error_for(refusal.code, str(refusal)))
                return
            if found:
                if self._message is not None or len(found) > 1:
                    self._refuse(Internal("more than one message answers a unary call"))
                    return
                self._message = found[0]
            self.credit(len(data))
        if ended:
            self._finish(Internal("server closed the stream without sending trailers"))

    def cut(self) -> None:
        """The connection is over, or does not want this call."""
        self.settle(self._outgoing.why())

    def drained(self) -> None:
        """Nobody waits for it."""

    def reset_by_peer(self, code: int) -> None:
        """The server ended the stream with RST_STREAM."""
        late = self.deadline is not None and self._outgoing.now >= self.deadline
        if code == wire.CANCEL and late:
            # Whose clock was first does not matter to the caller.
            self.settle(DeadlineExceeded(DEADLINE))
        else:
            self.settle(response.reset_error(code))

    def settle(self, error: SwarmError | None) -> None:
        """Tell who waits how the call went; once."""
        slot, self._slot = self._slot, None
        if slot is None or slot.done():
            return
        if error is None:
            slot.set_result(self._message)
        else:
            slot.set_exception(error)

    def _unusual(self, told: Told, ended: bool) -> None:
        if self._begun:
            if not ended:
                raise StreamFault(wire.PROTOCOL_ERROR, "a second header block")
            self._finish(told.verdict())
            return
        if told.informational:
            if ended:
                raise StreamFault(wire.PROTOCOL_ERROR, "an informational status at the end")
            self._outgoing.useless()
            return
        trouble = told.trouble()
        if ended:
            self._finish(trouble or told.verdict())
        elif trouble is not None:
            self._refuse(trouble)
        else:
            self._begun = True

    def _finish(self, error: SwarmError | None) -> None:
        """The answer is complete."""
        if error is None and self._messages.partial:
            error = Internal("unexpected EOF")
        self._outgoing.finished(self)
        self.settle(error)

    def _refuse(self, error: SwarmError) -> None:
        """No answer is wanted any more."""
        self.settle(error)
        self._outgoing.withdraw(self)
