"""Choosing addresses, with the stock texts (BEHAVIOUR 4.2), and reading interfaces."""

from __future__ import annotations

import socket
from pathlib import Path

import pytest

from swarmd.faces.engineapi import addresses
from swarmd.faces.engineapi.addresses import Surroundings
from swarmd.faces.engineapi.errors import Refusal
from swarmd.faces.engineapi.interfaces import Interface, system_interfaces
from tests.wire.rest_kit import an_interface

LO = an_interface("lo", "127.0.0.1", "::1")
ETH0 = an_interface("eth0", "10.77.30.2", "fe80::1")


def told(refusal: pytest.ExceptionInfo[Refusal]) -> tuple[int, str]:
    """Status and text."""
    return refusal.value.status, refusal.value.message


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("0.0.0.0:2377", "0.0.0.0:2377"),
        ("0.0.0.0", "0.0.0.0:2377"),
        ("eth0", "eth0:2377"),
        ("eth0:4000", "eth0:4000"),
        (":4000", "0.0.0.0:4000"),
        ("10.0.0.1:", "10.0.0.1:2377"),
        ("tcp://10.0.0.1:1", "10.0.0.1:1"),
        ("[fd00::1]", "[fd00::1]:2377"),
        ("[fd00::1]:5", "[fd00::1]:5"),
        ("fd00::1", "fd00::1"),
        ("host:port", "host:port"),
        ("10.0.0.1/x", "10.0.0.1/x"),
    ],
)
def test_defaults_are_filled_in(text: str, expected: str) -> None:
    assert addresses.with_defaults(text, "ListenAddr") == expected


def test_an_empty_address_is_refused() -> None:
    with pytest.raises(Refusal) as caught:
        addresses.with_defaults("", "ListenAddr")
    assert told(caught) == (400, 'invalid ListenAddr "": invalid empty address')


KNOWN = addresses.Resolved("0.0.0.0:2377", "10.0.0.1:2377", "10.0.0.1")


@pytest.mark.parametrize(
    ("known", "text", "listen_text", "advertise", "listen"),
    [
        (("0.0.0.0:2377", "10.0.0.1:2377"), "192.0.2.1", "", "192.0.2.1:2377", "0.0.0.0:2377"),
        (("0.0.0.0:2377", "10.0.0.1:2377"), "eth0", "", "10.77.30.2:2377", "0.0.0.0:2377"),
        (("0.0.0.0:2377", "10.0.0.1:2377"), "eth0:99", "", "10.77.30.2:99", "0.0.0.0:99"),
        (("[::]:2377", "10.0.0.1:2377"), "[fd00::7]:9", "", "[fd00::7]:9", "[::]:9"),
        # Listening on the very address: it moves along; on another one, or port: it stays.
        (("10.0.0.1:2377", "10.0.0.1:2377"), "eth0", "", "10.77.30.2:2377", "10.77.30.2:2377"),
        (("10.0.0.5:2377", "10.0.0.1:2377"), "eth0", "", "10.77.30.2:2377", "10.0.0.5:2377"),
        (("0.0.0.0:2377", "192.0.2.1:99"), "192.0.2.2", "", "192.0.2.2:99", "0.0.0.0:2377"),
        (("0.0.0.0:2377", "192.0.2.1:99"), "192.0.2.1:98", "", "192.0.2.1:98", "0.0.0.0:2377"),
        # Nothing was said at the join: found out by others, on the port listened on.
        (("0.0.0.0:4000", ""), "eth0", "", "10.77.30.2:4000", "0.0.0.0:4000"),
        (("0.0.0.0:1", "10.0.0.1:1"), "eth0:5", "eth0", "10.77.30.2:5", "10.77.30.2:2377"),
        (("0.0.0.0:1", "10.0.0.1:1"), "eth0", ":7", "10.77.30.2:1", "0.0.0.0:7"),
    ],
)
def test_a_changed_address_and_what_becomes_of_the_listener(
    known: tuple[str, str], text: str, listen_text: str, advertise: str, listen: str
) -> None:
    before = addresses.Resolved(*known, local="10.0.0.1")
    found = addresses.resolve_update(text, listen_text, before, Surroundings([LO, ETH0]))
    assert (found.advertise, found.listen) == (advertise, listen)


def test_without_any_address_of_its_own_the_local_one_stays() -> None:
    found = addresses.resolve_update("192.0.2.1", "", KNOWN, Surroundings([LO]))
    assert found.local == "10.0.0.1"
    assert addresses.resolve_update("eth0", "", KNOWN, Surroundings([ETH0])).local == "10.77.30.2"


@pytest.mark.parametrize(
    "text",
    ["0.0.0.0", "::", "nosuch0", "10.0.0.1:x", "10.0.0.1:0", "10.0.0.1:65536", "[::1", "\u0661:1"],
)
def test_bad_new_addresses(text: str) -> None:
    with pytest.raises(Refusal) as caught:
        addresses.resolve_update(text, "", KNOWN, Surroundings([LO, ETH0]))
    assert told(caught) == (400, addresses.BAD_ADVERTISE)
    with pytest.raises(Refusal) as caught:
        addresses.resolve_update("", "", KNOWN, Surroundings([LO, ETH0]))
    assert told(caught) == (400, 'invalid AdvertiseAddr "": invalid empty address')


def test_init_uses_the_only_address_of_the_only_device() -> None:
    resolved = addresses.resolve_init("0.0.0.0:2377", "", Surroundings([LO, ETH0]))
    assert resolved == addresses.Resolved("0.0.0.0:2377", "10.77.30.2:2377", "10.77.30.2")


def test_an_interface_name_stands_for_its_address() -> None:
    around = Surroundings([LO, ETH0])
    resolved = addresses.resolve_init("eth0:4000", "eth0:5000", around)
    assert resolved == addresses.Resolved("10.77.30.2:4000", "10.77.30.2:5000", "10.77.30.2")


def test_a_foreign_advertise_address_needs_a_local_one() -> None:
    resolved = addresses.resolve_init("0.0.0.0:2377", "192.0.2.1", Surroundings([LO, ETH0]))
    assert resolved.advertise == "192.0.2.1:2377" and resolved.local == "10.77.30.2"
    with pytest.raises(Refusal) as caught:
        addresses.resolve_init("0.0.0.0:2377", "192.0.2.1", Surroundings([LO]))
    assert told(caught) == (400, addresses.MUST_SAY_LISTEN)


def test_the_default_advertise_address_comes_before_guessing() -> None:
    around = Surroundings([LO, ETH0], default_advertise="127.0.0.1")
    assert addresses.resolve_advertise("", "2377", around) == ("127.0.0.1", "2377")
    with_port = Surroundings([LO, ETH0], default_advertise="eth0:4000")
    assert addresses.resolve_advertise("", "2377", with_port) == ("10.77.30.2", "4000")
    with pytest.raises(Refusal) as caught:
        addresses.resolve_advertise("", "1", Surroundings([LO], default_advertise="nosuch0"))
    assert told(caught) == (400, addresses.BAD_DEFAULT_ADVERTISE)


@pytest.mark.parametrize("text", ["foo", "0.0.0.0", "nosuch0", "::", "10.0.0.300", "fe80::1%lo"])
def test_bad_advertise_addresses(text: str) -> None:
    with pytest.raises(Refusal) as caught:
        addresses.resolve_advertise(text, "2377", Surroundings([LO, ETH0]))
    assert told(caught) == (
        400,
        "advertise address must be a non-zero IP address or network interface "
        "(with optional port number)",
    )


def test_bad_listen_and_data_path_addresses() -> None:
    with pytest.raises(Refusal) as caught:
        addresses.resolve_listen("foo:2377", [LO])
    assert told(caught) == (
        400,
        "listen address must be an IP address or network interface (with optional port number)",
    )
    with pytest.raises(Refusal) as caught:
        addresses.resolve_listen("fd00::1", [LO])
    assert told(caught) == (400, "could not parse listen address fd00::1")
    with pytest.raises(Refusal) as caught:
        addresses.resolve_data_path("eth9", [LO])
    assert told(caught) == (
        400,
        "data path address must be a non-zero IP address or network interface "
        "(without a port number)",
    )
    assert addresses.resolve_data_path("", [LO]) == ""
    assert addresses.resolve_data_path("eth0", [ETH0]) == "10.77.30.2"


@pytest.mark.parametrize(
    ("interfaces", "text"),
    [
        (
            [LO, an_interface("eth0", "10.77.30.2", "10.88.1.2")],
            "could not choose an IP address to advertise since this system has multiple "
            "addresses on interface eth0 (10.77.30.2 and 10.88.1.2)",
        ),
        (
            [LO, ETH0, an_interface("veA", "10.89.1.2")],
            "could not choose an IP address to advertise since this system has multiple "
            "addresses on different interfaces (10.77.30.2 on eth0 and 10.89.1.2 on veA)",
        ),
        (
            [LO, an_interface("eth0", "10.0.0.1", up=False)],
            "could not find the system's IP address",
        ),
        ([LO, an_interface("eth0", "169.254.1.1")], "could not find the system's IP address"),
        ([LO], "could not find the system's IP address"),
    ],
)
def test_guessing_refuses_to_choose(interfaces: list[Interface], text: str) -> None:
    with pytest.raises(Refusal) as caught:
        addresses.resolve_advertise("", "2377", Surroundings(interfaces))
    assert told(caught) == (400, text)


def test_physical_devices_come_before_virtual_ones() -> None:
    veth = an_interface("veA", "10.89.1.2", kind="veth")
    assert addresses.resolve_advertise("", "1", Surroundings([LO, veth, ETH0]))[0] == "10.77.30.2"
    assert addresses.resolve_advertise("", "1", Surroundings([LO, veth]))[0] == "10.89.1.2"
    both = [LO, veth, an_interface("docker0", "172.17.0.1", kind="bridge")]
    around = Surroundings(both, engine_subnets=["172.17.0.0/16", "junk"])
    assert addresses.resolve_advertise("", "1", around)[0] == "10.89.1.2"
    with pytest.raises(Refusal, match="different interfaces"):
        addresses.resolve_advertise("", "1", Surroundings(both))


def test_ipv4_comes_before_ipv6_and_brackets_are_kept() -> None:
    mixed = an_interface("eth0", "fd00::5", "10.0.0.5")
    assert addresses.resolve_advertise("eth0", "1", Surroundings([mixed]))[0] == "10.0.0.5"
    only6 = an_interface("eth0", "fd00::5")
    resolved = addresses.resolve_init("[::]:2377", "", Surroundings([only6]))
    assert resolved == addresses.Resolved("[::]:2377", "[fd00::5]:2377", "fd00::5")
    assert addresses.resolve_advertise("::ffff:10.0.0.9", "1", Surroundings([]))[0] == "10.0.0.9"


def test_a_named_interface_with_two_addresses_is_refused_as_such() -> None:
    two = an_interface("eth0", "10.0.0.1", "10.0.0.2")
    with pytest.raises(Refusal) as caught:
        addresses.resolve_advertise("eth0", "1", Surroundings([two]))
    text = "interface eth0 has more than one IPv4 address (10.0.0.1 and 10.0.0.2)"
    assert told(caught) == (400, text)
    with pytest.raises(Refusal) as caught:
        addresses.resolve_advertise("eth1", "1", Surroundings([an_interface("eth1")]))
    assert told(caught) == (400, "interface eth1 has no usable IPv4 or IPv6 address")


@pytest.mark.parametrize(
    ("pool", "bits", "text"),
    [
        (None, 30, None),
        ([], 24, None),
        (["10.20.0.0/16"], 26, None),
        (["10.20.0.0/16"], 0, None),
        ([], 30, "subnet size is out of range: 30"),
        (
            ["10.10.0.0/16"],
            8,
            'invalid CIDR: "10.10.0.0/16". Subnet size is too small for pool: 8',
        ),
        (["10.0.0.0"], 24, "invalid base pool 10.0.0.0: invalid CIDR address: 10.0.0.0"),
    ],
)
def test_address_pools(pool: list[str] | None, bits: int, text: str | None) -> None:
    if text is None:
        addresses.check_pool(pool, bits)
        return
    with pytest.raises(Refusal) as caught:
        addresses.check_pool(pool, bits)
    assert told(caught) == (500, text)


def test_data_path_ports() -> None:
    assert [addresses.data_path_port(port) for port in (0, 1024, 49151)] == [4789, 1024, 49151]
    for port in (80, 49152):
        with pytest.raises(Refusal) as caught:
            addresses.data_path_port(port)
        text = f"Datapath port number is not in valid range (1024-49151) : {port}"
        assert told(caught) == (500, text)


def test_the_kernel_is_asked_for_interfaces() -> None:
    found = {interface.name: interface for interface in system_interfaces()}
    assert set(found) == {name for _, name in socket.if_nameindex()}
    loopback = found["lo"]
    assert loopback.loopback and loopback.kind == "device"
    flags = int(Path("/sys/class/net/lo/flags").read_text(), 16)
    assert loopback.up is bool(flags & 1)
    if loopback.up:
        assert "127.0.0.1" in map(str, loopback.addresses)
