"""What of a stored object may leave by the Control service. Everything here returns copies."""

from __future__ import annotations

from swarmd import api

DEFAULT_POOL = "10.0.0.0/8"
DEFAULT_SUBNET_SIZE = 24
DEFAULT_VXLAN_PORT = 4789


def cluster(stored: api.Cluster) -> api.Cluster:
    """A cluster without keys, with the built-in address pool where none was given.

    A white list, as in the reference: a field that is added later stays inside until
    somebody decides otherwise. The signing certificate is no secret, but a client that sent
    it back without its key would ask for something else (sk:manager/controlapi/cluster.go).
    """
    shown = api.Cluster(
        id=stored.id,
        meta=stored.meta,
        spec=stored.spec,
        root_ca=stored.root_ca,
        blacklisted_certificates=stored.blacklisted_certificates,
        defaultAddressPool=stored.defaultAddressPool,
        subnetSize=stored.subnetSize,
        VXLANUDPPort=stored.VXLANUDPPort or DEFAULT_VXLAN_PORT,
    )
    shown.spec.ca_config.ClearField("signing_ca_key")
    shown.spec.ca_config.ClearField("signing_ca_cert")
    shown.root_ca.ClearField("ca_key")
    if shown.root_ca.HasField("root_rotation"):
        shown.root_ca.root_rotation.ClearField("ca_key")
    if not shown.defaultAddressPool:
        shown.defaultAddressPool.append(DEFAULT_POOL)
        shown.subnetSize = DEFAULT_SUBNET_SIZE
    return shown


def secret(stored: api.Secret) -> api.Secret:
    """A secret without its data."""
    shown = api.Secret()
    shown.CopyFrom(stored)
    shown.spec.ClearField("data")
    return shown
