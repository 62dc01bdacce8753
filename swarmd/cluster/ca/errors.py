"""What goes wrong with certificates, tokens and keys.

CAError                    plain text, code UNKNOWN (REST 500), as the engine's own errors
├── InvalidJoinToken       a join token that cannot be one
├── InvalidUnlockKey       an unlock key that cannot be one
├── InvalidPEM             text that should hold certificates or keys and does not
├── InvalidRoot            a root bundle, signing certificate or key that breaks the rules
├── InvalidCSR             a signing request that cannot be used
├── ChainError             certificates that do not lead to a trusted root
│   ├── UnknownAuthority   no trusted root signed this
│   └── CertificateExpired outside its time of validity
├── NoSigner               this root has no key here; somebody else may sign later
├── ExternalCAError        an external CA refused for good
├── ExternalCAUnavailable  an external CA could not be asked; try later
├── CannotDecrypt          a sealed record and no key that opens it
└── InvalidKEK             the key file is locked with another key
"""

from __future__ import annotations

from swarmd.base.errors import SwarmError


class CAError(SwarmError):
    """Trouble with certificates, tokens or keys; the text is meant for the user."""


class InvalidJoinToken(CAError):
    """The join token cannot be parsed."""

    def __init__(self) -> None:
        super().__init__("invalid join token")


class InvalidUnlockKey(CAError):
    """The unlock key cannot be parsed (REST 400 at the engine's door)."""

    def __init__(self) -> None:
        super().__init__("invalid key string")


class InvalidPEM(CAError):
    """The text holds no usable PEM blocks."""


class InvalidRoot(CAError):
    """A root bundle, signing certificate or signing key breaks the rules."""


class InvalidCSR(CAError):
    """A certificate signing request cannot be used; signing it again will not help."""


class ChainError(CAError):
    """The certificates do not form a chain to a trusted root."""


class UnknownAuthority(ChainError):
    """No trusted root stands behind the certificate."""

    def __init__(self, message: str = "x509: certificate signed by unknown authority") -> None:
        super().__init__(message)


class CertificateExpired(ChainError):
    """The certificate is outside its time of validity."""


class NoSigner(CAError):
    """There is no signing key here. Recoverable: an external CA or a new root may come."""

    def __init__(self) -> None:
        super().__init__("no valid signer found")


class ExternalCAError(CAError):
    """An external CA answered and refused; asking again will not help."""


class ExternalCAUnavailable(CAError):
    """An external CA could not be reached or did not answer properly; ask again later."""


class CannotDecrypt(CAError):
    """The record is sealed with a key we do not have, or is damaged."""


class InvalidKEK(CAError):
    """The key file is locked and the unlock key given does not open it."""
