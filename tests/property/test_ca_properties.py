"""Round trips, and malformed input that must end in a clear error, never in a traceback."""

from __future__ import annotations

import json
from contextlib import suppress

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from swarmd.base.entropy import SeededEntropy
from swarmd.cluster import ca
from swarmd.cluster.ca import chains, external, keyfile, keys, pem, tokens, unlock
from swarmd.cluster.ca.errors import CAError, CannotDecrypt
from swarmd.cluster.ca.keyfile import KEK, KeyFile
from swarmd.node.remotes import Remote, Remotes
from swarmd.node.statedir import NodeSettings, StateError, remotes_from_json, remotes_to_json

KEY_PEM = keys.to_pkcs8(keys.new_key())
ROOT = ca.new_root(1_792_600_578.0, SeededEntropy(1))
CSR = ca.new_key_and_csr()[1]
seeds = st.integers(0, 2**32)
some_bytes = st.binary(max_size=300)
key32 = st.binary(min_size=32, max_size=32)


@given(root_pem=some_bytes, seed=seeds, fips=st.booleans())
@example(root_pem=b"", seed=0, fips=False)
def test_tokens_round_trip(root_pem: bytes, seed: int, fips: bool) -> None:
    text = ca.join_token(root_pem, SeededEntropy(seed), fips)
    token = ca.parse_token(text)
    assert token.digest == tokens.root_hash(root_pem)
    assert (token.fips, len(text)) == (fips, 87 if fips else 85)
    assert text.endswith(token.secret) and text.isascii() and text == text.strip()


@given(text=st.text())
def test_any_text_is_a_token_or_refused_as_one(text: str) -> None:
    with suppress(CAError):
        ca.parse_token(text)
    with suppress(CAError):
        unlock.parse_unlock_key(text)
    with suppress(CAError):
        unlock.parse_unlock_key(unlock.PREFIX + text)


@given(at=st.integers(0, 84), char=st.characters())
def test_a_token_with_one_character_changed(at: int, char: str) -> None:
    text = ca.join_token(b"root", SeededEntropy(1))
    bent = text[:at] + char + text[at + 1 :]
    with suppress(CAError):
        assert len(ca.parse_token(bent).digest) == 64
    assert tokens.same(text, bent) is (text == bent)


@given(key=some_bytes)
def test_unlock_keys_round_trip(key: bytes) -> None:
    assert unlock.parse_unlock_key(unlock.format_unlock_key(key)) == key


key_files = st.builds(
    KeyFile,
    key_pem=st.just(KEY_PEM),
    kek=st.builds(KEK, st.one_of(st.just(b""), key32), st.integers(0, 2**64 - 1)),
    dek=key32,
    pending_dek=st.one_of(st.just(b""), key32),
    needs_rotation=st.booleans(),
    fips=st.booleans(),
)


@settings(max_examples=50)
@given(file=key_files, seed=seeds)
def test_key_files_round_trip(file: KeyFile, seed: int) -> None:
    text = keyfile.write(file, SeededEntropy(seed))
    assert keyfile.read(text, file.kek.key, fips=file.fips) == file
    assert keyfile.is_locked(text) is bool(file.kek.key)
    assert keyfile.strip_headers(text).count(b":") == 0
    assert text.count(b"-----") == 4 and text.endswith(b"-----\n")


@settings(max_examples=60)
@given(file=key_files, at=st.integers(0, 10_000), bit=st.integers(0, 7))
def test_damaged_key_files_are_told(file: KeyFile, at: int, bit: int) -> None:
    text = bytearray(keyfile.write(file, SeededEntropy(1)))
    text[at % len(text)] ^= 1 << bit
    with suppress(CAError):
        found = keyfile.read(bytes(text), file.kek.key, fips=file.fips)
        keys.load(found.key_pem)


labels = st.sampled_from(["CERTIFICATE", "PRIVATE KEY", "EC PARAMETERS", "X"])
headers = st.dictionaries(
    st.text("abcdef-", min_size=1), st.text("abcABC019/+= ").map(str.strip), max_size=4
)
blocks = st.builds(pem.Block, labels, some_bytes, headers)


@given(found=st.lists(blocks, max_size=4))
def test_pem_round_trip(found: list[pem.Block]) -> None:
    text = b"".join(pem.encode(block) for block in found)
    assert pem.decode(text) == (found, b"")
    assert pem.decode(text.replace(b"\n", b"\r\n"))[0] == found
    assert pem.normalize(b"junk\n" + text) == b"".join(
        pem.encode(pem.Block(block.label, block.der)) for block in found
    )


@given(junk=some_bytes, at=st.integers(0, 600), cut=st.integers(0, 600))
def test_junk_where_certificates_and_requests_belong(junk: bytes, at: int, cut: int) -> None:
    for text in (junk, ROOT.pem[:at] + junk + ROOT.pem[at:], ROOT.pem[:cut]):
        with suppress(CAError):
            chains.parse(text)
        with suppress(CAError):
            ca.load_root(text, 1_792_600_578.0)
        with suppress(CAError):
            ca.verify(text, ROOT.pem, 1_792_600_578.0)
        with suppress(CAError):
            keys.load(text)
    for label in ("CERTIFICATE", "CERTIFICATE REQUEST", "PRIVATE KEY"):
        block = pem.encode(pem.Block(label, junk))
        with suppress(CAError):
            chains.parse(block)
        with suppress(CAError):
            keys.load(block)
        with suppress(CAError):
            sign(block)


def sign(csr: bytes) -> bytes:
    return ca.sign(
        ROOT,
        csr,
        ca.Subject("n", "c", (ca.WORKER,)),
        now=1_792_600_578.0,
        entropy=SeededEntropy(1),
    )


LEAF = sign(CSR)


@settings(max_examples=400)
@given(at=st.integers(0, 10_000), bit=st.integers(0, 7))
def test_a_request_with_one_bit_changed_is_signed_for_its_key_or_refused(at: int, bit: int) -> None:
    der = bytearray(pem.first(CSR).der)
    der[at % len(der)] ^= 1 << bit
    with suppress(CAError):
        sign(pem.encode(pem.Block("CERTIFICATE REQUEST", bytes(der))))


@pytest.mark.filterwarnings("ignore:Parsed a serial number which wasn't positive")
@settings(max_examples=400)
@given(at=st.integers(0, 10_000), bit=st.integers(0, 7))
def test_a_chain_with_one_bit_changed_is_refused(at: int, bit: int) -> None:
    """Every bit is signed, or is the signature, or says how many bits the signature has.

    The last may pass where it cuts off zeros only: same content, same signature.
    """
    now = 1_792_600_578.0
    der = bytearray(pem.first(LEAF).der)
    der[at % len(der)] ^= 1 << bit
    text = pem.encode(pem.Block("CERTIFICATE", bytes(der)))
    try:
        passed = ca.verify(text, ROOT.pem, now).leaf
    except CAError:
        return
    real = ca.verify(LEAF, ROOT.pem, now).leaf
    assert passed.tbs_certificate_bytes == real.tbs_certificate_bytes
    assert passed.signature == real.signature


@given(data=some_bytes, key=key32, other=key32, seed=seeds)
def test_sealed_records_round_trip(data: bytes, key: bytes, other: bytes, seed: int) -> None:
    for sealer in (ca.secretbox(key, SeededEntropy(seed)), ca.fernet(key)):
        sealed = sealer.encrypt(data)
        assert ca.decryptor(other, key).decrypt(sealed) == data
        if other != key:
            with suppress(CannotDecrypt):
                raise AssertionError(ca.decryptor(other).decrypt(sealed))


@given(record=some_bytes, key=key32)
def test_any_bytes_are_a_record_or_refused_as_one(record: bytes, key: bytes) -> None:
    for opener in (ca.decryptor(key), ca.decryptor(), ca.decryptor(key, fips=True)):
        with suppress(CannotDecrypt):
            opener.decrypt(record)


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=20),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(
                ["success", "result", "certificate", "errors", "code", "message", "addr",
                 "node_id", "LocalAddr", "SubnetSize", "DefaultAddressPool", "JoinInProgress"]
            ),
            inner,
            max_size=4,
        )
    ),
)  # fmt: skip


@given(value=json_values, raw=some_bytes, status=st.sampled_from([200, 200, 500]))
def test_any_json_from_outside_is_understood_or_refused(
    value: object, raw: bytes, status: int
) -> None:
    for text in (json.dumps(value).encode(), raw):
        with suppress(CAError):
            assert isinstance(external.parse_answer(status, text), bytes)
        with suppress(StateError):
            remotes_from_json(text)
        with suppress(StateError):
            NodeSettings.from_json(text)


addresses = st.text("0123456789.:abc", min_size=1, max_size=20)
remote_lists = st.lists(st.builds(Remote, st.text(max_size=8), addresses), unique=True)


@given(remotes=remote_lists)
def test_known_managers_round_trip(remotes: list[Remote]) -> None:
    assert remotes_from_json(remotes_to_json(remotes)) == sorted(remotes)


@given(
    remotes=remote_lists,
    weights=st.lists(st.tuples(st.integers(0, 5), st.integers(-999, 999)), max_size=30),
    seed=seeds,
)
def test_any_experience_leaves_a_choice(
    remotes: list[Remote], weights: list[tuple[int, int]], seed: int
) -> None:
    known = Remotes(remotes)
    for number, weight in weights:
        if remotes:
            known.observe_if_known(remotes[number % len(remotes)], weight)
    assert all(abs(weight) <= 256 for weight in known.weights().values())
    if remotes:
        assert known.select(SeededEntropy(seed)) in remotes


@given(
    settings_=st.builds(
        NodeSettings,
        local_addr=st.text(),
        advertise_addr=st.text(),
        default_address_pool=st.lists(st.text()).map(tuple),
        subnet_size=st.integers(0, 2**32 - 1),
        join_in_progress=st.booleans(),
    )
)
def test_settings_round_trip(settings_: NodeSettings) -> None:
    assert NodeSettings.from_json(settings_.to_json()) == settings_
