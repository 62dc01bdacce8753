"""Starting, replacing and aborting root rotations: every branch, with the stock texts."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes

from swarmd import api
from swarmd.base.entropy import SeededEntropy
from swarmd.base.errors import Internal, InvalidArgument
from swarmd.cluster import ca
from swarmd.cluster.ca import chains, keys, pem, rotation_start
from swarmd.cluster.ca.errors import CAError, ExternalCAUnavailable
from swarmd.cluster.ca.root import RootCA
from tests.harness.ca_kit import NOW, World

YEAR = 365 * 86_400.0
ENTROPY = SeededEntropy(99)
URL = "https://ca.example/api/v1/cfssl/authsign"


class Externals:
    """An external CA in memory: reachable URLs, and a root that cross-signs."""

    def __init__(self, reachable: Sequence[str] = (), signer: RootCA | None = None) -> None:
        self.reachable = reachable
        self.signer = signer
        self.asked: list[tuple[str, bytes]] = []
        self.requests: list[bytes] = []
        self.answer: bytes | None = None

    async def is_reachable(self, url: str, roots_pem: bytes) -> bool:
        self.asked.append((url, roots_pem))
        return url in self.reachable

    async def sign(self, urls: Sequence[str], request: bytes, roots_pem: bytes) -> bytes:
        self.requests.append(request)
        if self.answer is not None:
            return self.answer
        if self.signer is None:
            raise ExternalCAUnavailable("down")
        return ca.cross_sign(self.signer, NEW.pem)


NEW = ca.new_root(NOW, SeededEntropy(5))
NEXT = ca.new_root(NOW, SeededEntropy(6))


def key_of(root: RootCA) -> bytes:
    assert root.signer is not None
    return root.signer.key_pem


def spec_of(
    cluster: api.Cluster,
    *,
    cert: bytes = b"",
    key: bytes = b"",
    force: int = 0,
    external: Sequence[tuple[str, bytes]] = (),
) -> api.ClusterSpec:
    spec = api.ClusterSpec()
    spec.CopyFrom(cluster.spec)
    spec.ca_config.signing_ca_cert = cert
    spec.ca_config.signing_ca_key = key
    spec.ca_config.force_rotate = force
    del spec.ca_config.external_cas[:]
    for url, ca_cert in external:
        spec.ca_config.external_cas.add(url=url, ca_cert=ca_cert)
    return spec


async def start(
    cluster: api.Cluster, spec: api.ClusterSpec, externals: Externals | None = None
) -> api.RootCA:
    before = cluster.SerializeToString(deterministic=True)
    result = await rotation_start.start_root_rotation(cluster, spec, NOW, ENTROPY, externals)
    assert cluster.SerializeToString(deterministic=True) == before
    assert result is not cluster.root_ca
    return result


def check_rotation(result: api.RootCA, old: RootCA, new_pem: bytes) -> None:
    """The row "running" of the table in wire/PROTOCOL 1.8."""
    rotation = result.root_rotation
    assert result.ca_cert == old.pem
    assert rotation.ca_cert == new_pem
    crossed = chains.parse(rotation.cross_signed_ca_cert)
    assert len(crossed) == 1
    assert chains.issuer_of(crossed[0]) == chains.issuer_of(chains.parse(new_pem)[0])
    assert chains.is_signed_by(crossed[0], old.certificates()[0])


async def test_nothing_wanted_nothing_changes() -> None:
    world = World()
    assert await start(world.cluster, spec_of(world.cluster)) == world.cluster.root_ca


async def test_forced_rotation_makes_a_new_root() -> None:
    world = World()
    result = await start(world.cluster, spec_of(world.cluster, force=3))
    check_rotation(result, world.root, result.root_rotation.ca_cert)
    assert result.last_forced_rotation == 3
    assert result.join_tokens == world.cluster.root_ca.join_tokens
    assert keys.matches(
        chains.parse(result.root_rotation.ca_cert)[0], keys.load(result.root_rotation.ca_key)
    )
    assert ca.root_from_api(result, NOW).signer is not None


async def test_the_same_force_number_again_changes_nothing() -> None:
    world = World()
    world.change_cluster(lambda draft: setattr(draft.root_ca, "last_forced_rotation", 3))
    result = await start(world.cluster, spec_of(world.cluster, force=3))
    assert result == world.cluster.root_ca


async def test_given_root_with_key() -> None:
    world = World()
    result = await start(
        world.cluster, spec_of(world.cluster, cert=b"\n" + NEW.pem, key=key_of(NEW), force=1)
    )
    check_rotation(result, world.root, NEW.pem)
    assert result.root_rotation.ca_key == key_of(NEW)
    assert result.last_forced_rotation == 1


async def rotating(world: World) -> api.Cluster:
    root_ca = await start(world.cluster, spec_of(world.cluster, cert=NEW.pem, key=key_of(NEW)))
    world.change_cluster(lambda draft: draft.root_ca.CopyFrom(root_ca))
    return world.cluster


async def test_another_rotation_replaces_a_running_one_from_the_original_root() -> None:
    world = World()
    cluster = await rotating(world)
    result = await start(cluster, spec_of(cluster, cert=NEXT.pem, key=key_of(NEXT), force=2))
    check_rotation(result, world.root, NEXT.pem)
    assert result.root_rotation.ca_key == key_of(NEXT)
    forced = await start(cluster, spec_of(cluster, force=7))
    assert forced.root_rotation.ca_cert not in (NEW.pem, NEXT.pem)
    check_rotation(forced, world.root, forced.root_rotation.ca_cert)


async def test_naming_the_current_root_aborts() -> None:
    world = World()
    cluster = await rotating(world)
    for key in (key_of(world.root), b""):
        externals = Externals([URL])
        result = await start(
            cluster,
            spec_of(cluster, cert=world.root.pem, key=key, force=4, external=[(URL, b"")]),
            externals,
        )
        assert not result.HasField("root_rotation")
        assert (result.ca_cert, result.ca_key) == (world.root.pem, key)
        assert result.last_forced_rotation == 4


async def test_naming_the_running_target_only_replaces_its_key() -> None:
    world = World()
    cluster = await rotating(world)
    externals = Externals([URL])
    result = await start(
        cluster, spec_of(cluster, cert=NEW.pem, force=5, external=[(URL, NEW.pem)]), externals
    )
    expected = api.RootCA()
    expected.CopyFrom(cluster.root_ca)
    expected.root_rotation.ca_key = b""
    expected.last_forced_rotation = 5
    assert result == expected
    assert externals.asked == [(URL, NEW.pem)]


async def test_update_during_rotation_keeps_it() -> None:
    world = World()
    cluster = await rotating(world)
    assert await start(cluster, spec_of(cluster)) == cluster.root_ca


TWO = NEW.pem + NEXT.pem
SOON = ca.new_root(NOW - 7300 * 86_400 + YEAR, SeededEntropy(7))
RESIGNED = ca.new_root(NOW, SeededEntropy(8))


@pytest.mark.parametrize(
    ("cert", "key", "message"),
    [
        (b"", key_of(NEW), "if a signing CA key is provided, the signing CA cert must also be"),
        (TWO, key_of(NEW), "the desired CA certificate cannot contain multiple certificates"),
        (NEW.pem * 2, key_of(NEW), "could not parse the desired CA certificate"),
        (SOON.pem, key_of(SOON), "CA certificate expires too soon"),
        (NEW.pem, key_of(NEXT), "certificate key mismatch"),
        (
            NEW.pem,
            b"",
            "there must be at least one valid, reachable external CA corresponding to the desired "
            "CA certificate",
        ),
    ],
)
async def test_refusals(cert: bytes, key: bytes, message: str) -> None:
    world = World()
    with pytest.raises(InvalidArgument) as caught:
        await start(world.cluster, spec_of(world.cluster, cert=cert, key=key))
    assert caught.value.message.startswith(message)


async def test_a_new_certificate_for_the_current_key_is_refused() -> None:
    world = World()
    assert world.root.signer is not None
    again = ca.new_root(NOW, SeededEntropy(11), cn="renewed")
    template = again.certificates()[0]
    key = world.root.signer.key
    builder = (
        x509.CertificateBuilder(template.subject, template.subject, key.public_key())
        .serial_number(5)
        .not_valid_before(template.not_valid_before_utc)
        .not_valid_after(template.not_valid_after_utc)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
    )
    renewed = chains.to_pem(builder.sign(key, hashes.SHA256()))
    for text in (key_of(world.root), keys.to_pkcs8(key)):
        with pytest.raises(InvalidArgument, match="Cannot update to a cert with an identical key"):
            await start(world.cluster, spec_of(world.cluster, cert=renewed, key=text))


async def test_root_that_is_no_ca_cannot_be_cross_signed() -> None:
    world = World()
    pair = world.pair("n")
    with pytest.raises(InvalidArgument):
        await start(world.cluster, spec_of(world.cluster, cert=pair.cert_pem, key=pair.key_pem))


# --- external CAs -------------------------------------------------------------------------


async def test_rotation_to_an_external_root() -> None:
    world = World()
    externals = Externals([URL])
    result = await start(
        world.cluster,
        spec_of(world.cluster, cert=NEW.pem, external=[("https://down", NEW.pem), (URL, NEW.pem)]),
        externals,
    )
    check_rotation(result, world.root, NEW.pem)
    assert result.root_rotation.ca_key == b""
    assert [url for url, _ in externals.asked] == ["https://down", URL]
    assert externals.requests == []


async def test_external_root_needs_a_reachable_url() -> None:
    world = World(with_key=False)
    for external in ([], [(URL, b"")], [(URL, NEW.pem)]):
        with pytest.raises(InvalidArgument, match="to the current CA certificate"):
            await start(world.cluster, spec_of(world.cluster, external=external), Externals())
    result = await start(
        world.cluster, spec_of(world.cluster, external=[(URL, b"")]), Externals([URL])
    )
    assert result == world.cluster.root_ca


async def test_adding_the_key_of_an_external_root_asks_nobody() -> None:
    world = World(with_key=False)
    result = await start(
        world.cluster,
        spec_of(world.cluster, cert=world.root.pem, key=key_of(world.root), force=1),
        None,
    )
    assert result.ca_key == key_of(world.root)
    with pytest.raises(CAError, match="certificate key mismatch"):
        await start(
            world.cluster, spec_of(world.cluster, cert=world.root.pem, key=key_of(NEW)), None
        )


async def test_rotation_away_from_an_external_root_uses_its_cross_signature() -> None:
    world = World(with_key=False)
    externals = Externals([URL], world.root)
    result = await start(
        world.cluster,
        spec_of(world.cluster, cert=NEW.pem, key=key_of(NEW), external=[(URL, b"")]),
        externals,
    )
    check_rotation(result, world.root, NEW.pem)
    assert b'"profile": "CA"' in externals.requests[0]


async def test_external_to_external_is_refused() -> None:
    world = World(with_key=False)
    with pytest.raises(InvalidArgument, match="rotating from one external CA to a different"):
        await start(
            world.cluster,
            spec_of(world.cluster, cert=NEW.pem, external=[(URL, b""), (URL, NEW.pem)]),
            Externals([URL]),
        )


async def test_external_cross_signature_that_fails_or_is_wrong() -> None:
    world = World(with_key=False)
    wish = spec_of(world.cluster, cert=NEW.pem, key=key_of(NEW), external=[(URL, b"")])
    down = Externals([URL])
    wrong = Externals([URL])
    stranger = Externals([URL], NEXT)
    junk = Externals([URL])
    wrong.answer = ca.cross_sign(world.root, NEXT.pem)
    junk.answer = b"not a certificate"
    for externals in (down, wrong, stranger, junk):
        with pytest.raises(Internal, match="unable to generate a cross-signed certificate"):
            await start(world.cluster, wish, externals)


async def test_a_rotation_to_an_external_root_keeps_needing_its_url() -> None:
    world = World()
    rotation = await start(
        world.cluster,
        spec_of(world.cluster, cert=NEW.pem, external=[(URL, NEW.pem)]),
        Externals([URL]),
    )
    world.change_cluster(lambda draft: draft.root_ca.CopyFrom(rotation))
    with pytest.raises(InvalidArgument, match="to the next CA certificate"):
        await start(world.cluster, spec_of(world.cluster), Externals([URL]))
    kept = await start(
        world.cluster, spec_of(world.cluster, external=[(URL, NEW.pem)]), Externals([URL])
    )
    assert kept == rotation


def test_texts_are_compared_normalised() -> None:
    untidy = b"  leading\n" + NEW.pem.replace(b"\n", b"\r\n") + b"\n\n"
    assert pem.normalize(untidy) == NEW.pem
