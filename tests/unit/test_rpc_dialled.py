"""What is said of a manager that cannot be reached: the words scripts know."""

from __future__ import annotations

import errno
import os
import socket
import ssl

import pytest

from swarmd.rpc.dialled import unreachable


def os_error(number: int) -> OSError:
    return OSError(number, os.strerror(number))


@pytest.mark.parametrize(
    ("reason", "text"),
    [
        (
            os_error(errno.ECONNREFUSED),
            "Error while dialing dial tcp 10.0.0.9:2377: connect: connection refused",
        ),
        (
            os_error(errno.EHOSTUNREACH),
            "Error while dialing dial tcp 10.0.0.9:2377: connect: no route to host",
        ),
        (
            os_error(errno.ENETUNREACH),
            "Error while dialing dial tcp 10.0.0.9:2377: connect: network is unreachable",
        ),
        (
            os_error(errno.ETIMEDOUT),
            "Error while dialing dial tcp 10.0.0.9:2377: connect: connection timed out",
        ),
        (
            socket.gaierror(-2, "Name or service not known"),
            "Error while dialing dial tcp: lookup 10.0.0.9: no such host",
        ),
        ("i/o timeout", "Error while dialing dial tcp 10.0.0.9:2377: i/o timeout"),
        (ssl.SSLError(1, "bad certificate"), "authentication handshake failed: bad certificate"),
        (
            ConnectionError("connection closed"),
            "Error while dialing dial tcp 10.0.0.9:2377: connection closed",
        ),
    ],
)
def test_the_stock_words(reason: Exception | str, text: str) -> None:
    said = unreachable("10.0.0.9:2377", reason)
    assert said == f'connection error: desc = "transport: {text}"'
