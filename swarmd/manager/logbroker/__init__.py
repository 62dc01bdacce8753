"""Log subscriptions between clients and nodes: see README.md."""

from swarmd.manager.logbroker.broker import Broker, LogBroker, Logs

__all__ = ["Broker", "LogBroker", "Logs"]
