"""The cfssl protocol as values: which URLs, what is asked, what an answer means."""

from __future__ import annotations

import json

import pytest
from cryptography import x509

from swarmd import api
from swarmd.base.entropy import SeededEntropy
from swarmd.cluster import ca
from swarmd.cluster.ca import external
from swarmd.cluster.ca.errors import ExternalCAError, ExternalCAUnavailable, NoSigner
from tests.harness.ca_kit import NOW, World

OTHER = ca.new_root(NOW, SeededEntropy(2))


def entries(*pairs: tuple[str, bytes]) -> list[api.ExternalCA]:
    return [api.ExternalCA(url=url, ca_cert=cert) for url, cert in pairs]


def test_urls_count_for_one_root_only_in_list_order() -> None:
    current = ca.new_root(NOW, SeededEntropy(1)).pem
    listed = entries(("a", b""), ("b", OTHER.pem), ("c", current), ("d", OTHER.pem + b"\n"))
    assert external.urls_for(current, current, listed) == ["a", "c"]
    assert external.urls_for(OTHER.pem, current, listed) == ["b", "d"]


def test_urls_of_a_cluster_follow_the_rotation() -> None:
    world = World()
    world.change_cluster(
        lambda draft: draft.spec.ca_config.external_cas.extend(
            entries(("old", b""), ("new", OTHER.pem))
        )
    )
    assert external.urls_of_cluster(world.cluster) == ["old"]
    world.change_cluster(lambda draft: setattr(draft.root_ca.root_rotation, "ca_cert", OTHER.pem))
    assert external.urls_of_cluster(world.cluster) == ["new"]


@pytest.mark.parametrize(
    ("role", "hosts"),
    [(ca.MANAGER, [ca.MANAGER, "n", "swarm-ca"]), (ca.WORKER, [ca.WORKER, "n"])],
)
def test_sign_request(role: str, hosts: list[str]) -> None:
    body = json.loads(external.sign_request(b"the csr", ca.Subject("n", "c", (role,))))
    assert body["certificate_request"] == "the csr"
    assert body["hosts"] == hosts
    assert body["subject"] == {"CN": "n", "names": [{"O": "c", "OU": role}], "SerialNumber": ""}
    assert (body["profile"], body["label"], body["crl_override"]) == ("", "", "")
    assert "extensions" not in body


def test_cross_sign_request() -> None:
    body = json.loads(external.cross_sign_request(OTHER))
    assert body["profile"] == "CA"
    assert body["hosts"] is None
    assert body["subject"]["CN"] == "swarm-ca"
    assert body["extensions"] == [{"id": "2.5.29.19", "critical": True, "value": "30030101ff"}]
    request = x509.load_pem_x509_csr(body["certificate_request"].encode())
    assert request.is_signature_valid
    root = OTHER.certificates()[0]
    assert request.subject == root.subject
    assert request.public_key() == root.public_key()
    with pytest.raises(NoSigner):
        external.cross_sign_request(ca.load_root(OTHER.pem, NOW))


def answer(**fields: object) -> bytes:
    return json.dumps({"success": True, "errors": [], "messages": [], **fields}).encode()


def test_a_certificate_in_the_answer() -> None:
    assert external.parse_answer(200, answer(result={"certificate": "PEM"})) == b"PEM"


@pytest.mark.parametrize(
    ("status", "body", "text"),
    [
        (500, b"oops", "unexpected status code in CSR response: 500 - oops"),
        (302, b"", "unexpected status code in CSR response: 302 - "),
        (200, b"", "unable to parse JSON response"),
        (200, b"{", "unable to parse JSON response"),
        (200, b"[" * 100_000, "unable to parse JSON response"),
        (200, b"\xff\xfe\x00", "unable to parse JSON response"),
        (200, b"[]", "unable to parse JSON response: not an object"),
    ],
)
def test_answers_after_which_asking_again_may_help(status: int, body: bytes, text: str) -> None:
    with pytest.raises(ExternalCAUnavailable) as caught:
        external.parse_answer(status, body)
    assert str(caught.value) == text


@pytest.mark.parametrize(
    ("body", "text"),
    [
        (answer(success=False, result=None), "certificate signing request failed"),
        (answer(success=False, result={"certificate": "x"}), "certificate signing request failed"),
        (
            answer(success=False, errors=[{"code": 5200, "message": "no"}]),
            "response errors: [{5200 no}]",
        ),
        (answer(success=False, errors="x"), "certificate signing request failed"),
        (answer(success=False, errors=[3]), "response errors: []"),
        (answer(result="x"), "invalid result type: str"),
        (answer(result={}), "invalid result certificate field type: NoneType"),
        (answer(result={"certificate": 5}), "invalid result certificate field type: int"),
    ],
)
def test_answers_that_are_final(body: bytes, text: str) -> None:
    with pytest.raises(ExternalCAError) as caught:
        external.parse_answer(200, body)
    assert str(caught.value) == text


def test_long_refusals_are_cut() -> None:
    errors = [{"code": 1, "message": "x" * 5000}] * 20
    with pytest.raises(ExternalCAError) as caught:
        external.parse_answer(200, answer(success=False, errors=errors))
    assert len(str(caught.value)) <= 1024
