"""Who issued the cluster's certificates: subject and public key, as raw DER.

The reference copies both byte ranges out of the certificate as they stand, so a small walk over
the DER is exact where parsing and writing again need not be.
"""

from __future__ import annotations

import base64
import binascii
from functools import lru_cache

_BEGIN = b"-----BEGIN CERTIFICATE-----"
_END = b"-----END CERTIFICATE-----"
_CONTEXT_0 = 0xA0


class _Reader:
    """Walks the elements of one DER sequence."""

    def __init__(self, data: bytes) -> None:
        self.data = data
        self.at = 0

    def element(self) -> tuple[int, bytes, bytes]:
        """Tag, contents and the whole next element. Raises ValueError at malformed input."""
        data, begin = self.data, self.at
        if begin + 2 > len(data):
            raise ValueError("truncated DER")
        tag, length, at = data[begin], data[begin + 1], begin + 2
        if length & 0x80:
            octets = length & 0x7F
            length = int.from_bytes(data[at : at + octets], "big")
            at += octets
        end = at + length
        if end > len(data):
            raise ValueError("truncated DER")
        self.at = end
        return tag, data[at:end], data[begin:end]


@lru_cache(maxsize=16)
def issuer(pem: bytes) -> tuple[bytes, bytes] | None:
    """Subject and SubjectPublicKeyInfo (DER) of the first certificate in `pem`, None if broken."""
    begin = pem.find(_BEGIN)
    end = pem.find(_END, begin)
    if begin < 0 or end < 0:
        return None
    try:
        der = base64.b64decode(pem[begin + len(_BEGIN) : end])
        certificate = _Reader(_Reader(der).element()[1])
        body = _Reader(certificate.element()[1])
        tag, _, _ = body.element()
        if tag == _CONTEXT_0:  # the version field; then comes the serial number
            body.element()
        for _ in range(3):  # signature algorithm, issuer, validity
            body.element()
        subject = body.element()[2]
        public_key = body.element()[2]
    except (ValueError, binascii.Error):
        return None
    return subject, public_key
