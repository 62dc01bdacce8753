"""What a wished CA configuration makes of the cluster's root: keep, re-key, abort or rotate.

The whole decision of `docker swarm ca` and `docker swarm update` about roots, with the stock
rules and texts (wire/PROTOCOL 1.8, BEHAVIOUR 4.3). Talking to external CAs is left to the
`ExternalCAs` handed in; nothing else here waits for anything.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Protocol

from swarmd import api
from swarmd.base.errors import Internal, InvalidArgument
from swarmd.cluster.ca import chains, external, pem, root
from swarmd.cluster.ca.chance import Chance
from swarmd.cluster.ca.errors import CAError
from swarmd.cluster.ca.root import RootCA

NEW_ROOT_LIFE_MIN = 365 * 24 * 3600.0


class ExternalCAs(Protocol):
    """The network side of external CAs."""

    async def is_reachable(self, url: str, roots_pem: bytes) -> bool:
        """True when a TLS connection to `url` works and its certificate is under `roots_pem`."""
        ...

    async def sign(self, urls: Sequence[str], request: bytes, roots_pem: bytes) -> bytes:
        """Send a signing request to the first URL that answers; PEM. Raises `CAError`."""
        ...


class NoExternalCAs:
    """Stands in where there is no network: nothing is reachable."""

    async def is_reachable(self, url: str, roots_pem: bytes) -> bool:
        """Always False."""
        return False

    async def sign(self, urls: Sequence[str], request: bytes, roots_pem: bytes) -> bytes:
        """Always raises."""
        raise CAError("no external CA URLs")


@dataclass(frozen=True, slots=True)
class _Wish:
    """The configuration wanted, beside the root as it is; certificates normalised."""

    current: api.RootCA
    current_cert: bytes
    cert: bytes
    key: bytes = field(repr=False)
    force_rotate: int
    external: Sequence[api.ExternalCA]
    now: float

    @property
    def rotation(self) -> api.RootRotation | None:
        return self.current.root_rotation if self.current.HasField("root_rotation") else None


async def start_root_rotation(
    cluster: api.Cluster,
    spec: api.ClusterSpec,
    now: float,
    entropy: Chance,
    externals: ExternalCAs | None = None,
) -> api.RootCA:
    """The root CA object that `cluster` should get together with `spec`.

    Always a fresh message; equal to the present one when there is nothing to do. The caller
    checks the cluster's version again in its transaction, since external CAs take time.
    Raises `InvalidArgument`, `Internal` or `CAError` with the stock texts.
    """
    config = spec.ca_config
    if _nothing_wished(cluster.root_ca, config):
        return _copy(cluster.root_ca)
    current_cert = pem.normalize(cluster.root_ca.ca_cert)
    wish = _Wish(
        current=cluster.root_ca,
        current_cert=current_cert,
        cert=pem.normalize(config.signing_ca_cert),
        key=config.signing_ca_key,
        force_rotate=config.force_rotate,
        external=list(config.external_cas),
        now=now,
    )
    asker = _Asker(externals or NoExternalCAs(), wish)
    if wish.key and not wish.cert:
        raise InvalidArgument(
            "if a signing CA key is provided, the signing CA cert must also be provided"
        )
    old_urls: list[str] = []
    if not cluster.root_ca.ca_key:
        if wish.key and wish.cert == current_cert:
            root.load_root(wish.cert, now, signing_cert=wish.cert, signing_key=wish.key)
            return _with_key(wish)
        old_urls = await asker.reachable_urls(current_cert, "current")
    if not wish.cert:
        return await _without_cert(wish, asker, old_urls, entropy)
    return await _with_cert(wish, asker, old_urls)


def _nothing_wished(current: api.RootCA, config: api.CAConfig) -> bool:
    """Whether a settled root stays as it is: so it is with nearly every change of a cluster."""
    return (
        bool(current.ca_key)
        and not current.HasField("root_rotation")
        and not config.signing_ca_cert
        and not config.signing_ca_key
        and config.force_rotate == current.last_forced_rotation
    )


async def _without_cert(
    wish: _Wish, asker: _Asker, old_urls: list[str], entropy: Chance
) -> api.RootCA:
    if wish.current.last_forced_rotation != wish.force_rotate:
        return await _rotate(wish, asker, root.new_root(wish.now, entropy), old_urls)
    rotation = wish.rotation
    if rotation is not None and not rotation.ca_key:
        await asker.reachable_urls(pem.normalize(rotation.ca_cert), "next")
    return _copy(wish.current)


async def _with_cert(wish: _Wish, asker: _Asker, old_urls: list[str]) -> api.RootCA:
    new = _desired(wish)
    if not wish.key:
        await asker.reachable_urls(wish.cert, "desired")
    if wish.cert == wish.current_cert:
        return _with_key(wish)
    # Go 1.19 and later refuse chains with two certificates of one key, so such a rotation
    # could never finish.
    if wish.key and chains.spki(new.certificates()[0]) in _keys_of(wish.current_cert):
        raise InvalidArgument("Cannot update to a cert with an identical key")
    rotation = wish.rotation
    if rotation is not None and pem.normalize(rotation.ca_cert) == wish.cert:
        copied = _copy(wish.current)
        copied.root_rotation.ca_key = wish.key
        copied.last_forced_rotation = wish.force_rotate
        return copied
    return await _rotate(wish, asker, new, old_urls)


def _desired(wish: _Wish) -> RootCA:
    try:
        new = root.load_root(
            wish.cert,
            wish.now,
            signing_cert=wish.cert if wish.key else b"",
            signing_key=wish.key,
        )
    except CAError as error:
        raise InvalidArgument(error.message) from error
    parsed = new.certificates()
    if len({chains.to_pem(certificate) for certificate in parsed}) != 1:
        raise InvalidArgument("the desired CA certificate cannot contain multiple certificates")
    if len(parsed) != 1:
        raise InvalidArgument("could not parse the desired CA certificate")
    if chains.validity(parsed[0])[1] < wish.now + NEW_ROOT_LIFE_MIN:
        raise InvalidArgument("CA certificate expires too soon")
    return new


def _keys_of(bundle: bytes) -> list[bytes]:
    return [chains.spki(certificate) for certificate in chains.parse(bundle)]


async def _rotate(wish: _Wish, asker: _Asker, new: RootCA, old_urls: list[str]) -> api.RootCA:
    """Begin, or begin anew: the original root always does the cross-signing."""
    if wish.current.ca_key:
        crossed = _cross_sign_here(wish, new)
    elif new.signer is None:
        raise InvalidArgument(
            "rotating from one external CA to a different external CA is not supported"
        )
    else:
        crossed = await asker.cross_sign(new, old_urls)
    copied = _copy(wish.current)
    copied.root_rotation.CopyFrom(
        api.RootRotation(
            ca_cert=new.pem,
            ca_key=new.signer.key_pem if new.signer else b"",
            cross_signed_ca_cert=crossed,
        )
    )
    copied.last_forced_rotation = wish.force_rotate
    return copied


def _cross_sign_here(wish: _Wish, new: RootCA) -> bytes:
    old_cert, old_key = wish.current.ca_cert, wish.current.ca_key
    try:
        old = root.load_root(old_cert, wish.now, signing_cert=old_cert, signing_key=old_key)
        crossed = pem.normalize(root.cross_sign(old, new.pem))
        return _checked(crossed, wish, new)
    except CAError as error:
        raise _failed() from error


def _checked(crossed: bytes, wish: _Wish, new: RootCA) -> bytes:
    """Demand a cross-signed certificate that will work: under the old root, with the new key.

    Without this an external CA with another idea of profile "CA" would break every renewal.
    """
    path = chains.verify(crossed, wish.current.ca_cert, wish.now)
    wanted = chains.issuer_of(new.certificates()[0])
    if chains.issuer_of(path.leaf) != wanted or not chains.is_ca(path.leaf):
        raise CAError("the cross-signed certificate does not stand for the new root")
    return crossed


def _failed() -> Internal:
    return Internal("unable to generate a cross-signed certificate for root rotation")


def _with_key(wish: _Wish) -> api.RootCA:
    """Stay with the current root, perhaps with another key; a running rotation ends."""
    copied = _copy(wish.current)
    copied.ca_key = wish.key
    copied.ClearField("root_rotation")
    copied.last_forced_rotation = wish.force_rotate
    return copied


def _copy(current: api.RootCA) -> api.RootCA:
    copied = api.RootCA()
    copied.CopyFrom(current)
    return copied


class _Asker:
    """Questions to external CAs about one wish."""

    def __init__(self, externals: ExternalCAs, wish: _Wish) -> None:
        self._externals = externals
        self._wish = wish

    async def reachable_urls(self, cert: bytes, what: str) -> list[str]:
        """All URLs for the root `cert`, if at least one of them works.

        Raises `InvalidArgument`; `what` names the root in the text.
        """
        urls = external.urls_for(cert, self._wish.current_cert, self._wish.external)
        for url in urls:
            if await self._externals.is_reachable(url, cert):
                return urls
        raise InvalidArgument(
            "there must be at least one valid, reachable external CA corresponding to "
            f"the {what} CA certificate"
        )

    async def cross_sign(self, new: RootCA, urls: list[str]) -> bytes:
        """Have the CA behind the current root sign the new one. Raises `Internal`."""
        if not urls:
            raise InvalidArgument(
                "must provide an external CA for the current external root CA to generate a "
                "cross-signed certificate"
            )
        request = external.cross_sign_request(new)
        try:
            answer = await self._externals.sign(urls, request, self._wish.current.ca_cert)
            return _checked(pem.normalize(answer), self._wish, new)
        except CAError as error:
            raise _failed() from error
