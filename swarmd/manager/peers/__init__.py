"""The way to the other managers: one connection and one bounded queue each."""

from swarmd.manager.peers.chunks import requests_for
from swarmd.manager.peers.health import check_health
from swarmd.manager.peers.link import REMOVED, Dial
from swarmd.manager.peers.transport import Peers

__all__ = ["REMOVED", "Dial", "Peers", "check_health", "requests_for"]
