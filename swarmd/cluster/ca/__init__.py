"""Certificates, tokens and sealed records as values: no store, no files, no network.

Start with `root` (the trust), `certificates` (what nodes carry) and `keyfile` (what lies on
disk). The names most rooms need are here.
"""

from swarmd.cluster.ca.certificates import (
    Identity,
    KeyPair,
    identity,
    new_csr,
    new_key_and_csr,
    sign,
)
from swarmd.cluster.ca.chains import CA_ROLE, MANAGER, WORKER, Issuer, Subject, tls_info, verify
from swarmd.cluster.ca.envelope import Decryptor, Encryptor, decryptor, fernet, plain, secretbox
from swarmd.cluster.ca.root import (
    RootCA,
    RootCheck,
    Signer,
    cross_sign,
    load_root,
    new_root,
    root_from_api,
)
from swarmd.cluster.ca.tokens import JoinToken, join_token, parse_token

__all__ = [
    "CA_ROLE",
    "MANAGER",
    "WORKER",
    "Decryptor",
    "Encryptor",
    "Identity",
    "Issuer",
    "JoinToken",
    "KeyPair",
    "RootCA",
    "RootCheck",
    "Signer",
    "Subject",
    "cross_sign",
    "decryptor",
    "fernet",
    "identity",
    "join_token",
    "load_root",
    "new_csr",
    "new_key_and_csr",
    "new_root",
    "parse_token",
    "plain",
    "root_from_api",
    "secretbox",
    "sign",
    "tls_info",
    "verify",
]
