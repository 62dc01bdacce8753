"""The swarmd worker: a session with a manager, and honest answers to assignments. See README.md."""

from swarmd.worker.agent.agent import Agent, Host
from swarmd.worker.agent.describe import LocalEngine, describe

__all__ = ["Agent", "Host", "LocalEngine", "describe"]
