"""How often one address may guess or create. Pure; time is an argument."""

from __future__ import annotations

from collections import OrderedDict
from ipaddress import IPv6Address, ip_address


class Guard:
    """A budget per address: `burst` at once, then one more every `seconds_each`."""

    def __init__(self, burst: int, seconds_each: float, addresses_max: int = 10_000) -> None:
        self._burst = float(burst)
        self._seconds_each = seconds_each
        self._addresses_max = addresses_max
        # Budget left and when it was so, least recently changed first.
        self._left: OrderedDict[str, tuple[float, float]] = OrderedDict()

    def wait(self, address: str, now: float) -> float:
        """Seconds until `address` has budget; 0.0 when it has."""
        left = self._now(network_of(address), now)
        return 0.0 if left >= 1.0 else (1.0 - left) * self._seconds_each

    def spend(self, address: str, now: float) -> None:
        """Take one from the budget of `address`; it never falls below zero."""
        network = network_of(address)
        self._left[network] = (max(0.0, self._now(network, now) - 1.0), now)
        self._left.move_to_end(network)
        if len(self._left) > self._addresses_max:
            self._left.popitem(last=False)

    def _now(self, network: str, now: float) -> float:
        left, when = self._left.get(network, (self._burst, now))
        return min(self._burst, left + max(0.0, now - when) / self._seconds_each)


def network_of(address: str) -> str:
    """One IPv6 customer has a whole /64: that counts as one address."""
    try:
        parsed = ip_address(address.partition("%")[0])
    except ValueError:
        return address
    if isinstance(parsed, IPv6Address):
        if parsed.ipv4_mapped is not None:
            return str(parsed.ipv4_mapped)
        return str(int(parsed) >> 64)
    return address
