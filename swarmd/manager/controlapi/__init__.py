"""The Control service: what administrators ask of a cluster, checked, then one transaction.

Start at `service.Control`; the `validate_*` modules hold the rules, without any I/O.
"""

from swarmd.manager.controlapi.seams import (
    Committer,
    Member,
    Membership,
    Needs,
    NoPlugins,
    Plugins,
)
from swarmd.manager.controlapi.service import Control

__all__ = ["Committer", "Control", "Member", "Membership", "Needs", "NoPlugins", "Plugins"]
