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
        (os_error(errno.ECONNREFUSED), "dial tcp 10.0.0.9:2377: connect: connection refused"),
        (os_error(errno.EHOSTUNREACH), "dial tcp 10.0.0.9:2377: connect: no route to host"),
        (os_error(errno.ENETUNREACH), "dial tcp 10.0.0.9:2377: connect: network is unreachable"),
        (os_error(errno.ETIMEDOUT), "dial tcp 10.0.0.9:2377: connect: connection timed out"),
        (
            socket.gaierror(-2, "Name or service not known"),
            "dial tcp: lookup 10.0.0.9: no such host",
        ),
        ("i/o timeout", "dial tcp 10.0.0.9:2377: i/o timeout"),
        (ssl.SSLError(1, "bad certificate"), "10.0.0.9:2377: bad certificate"),
        (ConnectionError("connection closed"), "10.0.0.9:2377: connection closed"),
    ],
)
def test_the_stock_words(reason: Exception | str, text: str) -> None:
    said = unreachable("10.0.0.9:2377", reason)
    assert said == f'connection error: desc = "transport: Error while dialing {text}"'
