"""The CA services of a manager, what its door knows of the cluster, and external CAs."""

from swarmd.manager.caserver.authorizer import StoreAuthorizer
from swarmd.manager.caserver.external import CfsslClient, ExternalSigner
from swarmd.manager.caserver.service import CA, CAServer, NodeCA

__all__ = ["CA", "CAServer", "CfsslClient", "ExternalSigner", "NodeCA", "StoreAuthorizer"]
