"""Join tokens and unlock keys: accepted and refused forms."""

from __future__ import annotations

import pytest

from swarmd.base.entropy import SeededEntropy
from swarmd.cluster import ca
from swarmd.cluster.ca import tokens, unlock
from swarmd.cluster.ca.errors import InvalidJoinToken, InvalidUnlockKey

DIGEST = "2fucfdu8kkcxfxa9qqg55r2tndfqfw1y4tlgol5dvhdh6omx7f"
SECRET = "claw8rmp5ojlnnfumk3qe2d19"
GOOD = f"SWMTKN-1-{DIGEST}-{SECRET}"


def test_recorded_mismatch_text_names_the_digest_of_this_token() -> None:
    """errors.json, join-wrongca: token and digest belong together."""
    text = f"SWMTKN-1-00000du8kkcxfxa9qqg55r2tndfqfw1y4tlgol5dvhdh6omx7f-{SECRET}"
    wanted = "0000009a12965db7dcaa82380c21a207abccc282410a130bf5773a362bcd919b"
    assert ca.parse_token(text).digest == wanted


@pytest.mark.parametrize(
    ("text", "version", "fips"),
    [
        (GOOD, 1, False),
        (f"SWMTKN-2-1-{DIGEST}-{SECRET}", 2, True),
        (f"SWMTKN-2-0-{DIGEST}-{SECRET}", 2, False),
        (GOOD.replace(DIGEST, DIGEST.upper()), 1, False),
    ],
)
def test_accepted_forms(text: str, version: int, fips: bool) -> None:
    token = ca.parse_token(text)
    assert (token.version, token.fips, token.secret) == (version, fips, SECRET)
    assert token.digest == ca.parse_token(GOOD).digest


@pytest.mark.parametrize(
    "text",
    [
        "",
        "BAD",
        "SWMTKN",
        "SWMTKN-1",
        f"SWMTKN-1-{DIGEST}",
        f"SWMTKN-1-{DIGEST}-{SECRET}-x",
        f"SWMTKN-1-1-{DIGEST}-{SECRET}",
        f"SWMTKN-2-{DIGEST}-{SECRET}",
        f"SWMTKN-2-2-{DIGEST}-{SECRET}",
        f"SWMTKN-3-{DIGEST}-{SECRET}",
        f"swmtkn-1-{DIGEST}-{SECRET}",
        f"SWMTKN-1-{DIGEST[1:]}-{SECRET}",
        f"SWMTKN-1-{DIGEST}0-{SECRET}",
        f"SWMTKN-1-{DIGEST}-{SECRET[1:]}",
        f"SWMTKN-1-{DIGEST}-{SECRET}0",
        f"SWMTKN-1-{'z' * 50}-{SECRET}",
        f"SWMTKN-1-{DIGEST[:-1]}_-{SECRET}",
        f"SWMTKN-1-{DIGEST[:-1]}é-{SECRET}",
        f"SWMTKN-1-{DIGEST[:-1]}٣-{SECRET}",
        f"SWMTKN-1-{DIGEST[:-1]}\n-{SECRET}",
        f" {GOOD}",
        f"{GOOD}\n",
        f"SWMTKN-1-{DIGEST}-{SECRET[:-1]}é",
        f"SWMTKN-1-{DIGEST}-{SECRET[:-1]}\udce9x",
    ],
)
def test_refused_forms(text: str) -> None:
    with pytest.raises(InvalidJoinToken, match=r"^invalid join token$"):
        ca.parse_token(text)


def test_fips_clusters_get_the_second_form() -> None:
    text = ca.join_token(b"root", SeededEntropy(1), fips=True)
    assert text.startswith("SWMTKN-2-1-")
    assert ca.parse_token(text).fips


def test_comparison() -> None:
    assert tokens.same(GOOD, GOOD)
    assert not tokens.same(GOOD, GOOD[:-1])
    assert not tokens.same("", "")
    assert not tokens.same(GOOD, "\udce9")
    assert SECRET not in repr(ca.parse_token(GOOD))


def test_recorded_unlock_key() -> None:
    text = "SWMKEY-1-s1fuGqTYJiX5y5+l+2AR3mQpXA0AWFYZUmbmjl5R2VM"
    key = unlock.parse_unlock_key(text)
    assert len(key) == 32
    assert unlock.format_unlock_key(key) == text


@pytest.mark.parametrize(
    "text",
    ["", "SWMKEY-1", "SWMKEY-2-AAAA", "swmkey-1-AAAA", "SWMKEY-1-A", "SWMKEY-1-AA==", "SWMKEY-1-é",
     "SWMKEY-1-A_-A", "SWMKEY-1-AAAA AAAA", " SWMKEY-1-AAAA"],
)  # fmt: skip
def test_malformed_unlock_keys(text: str) -> None:
    with pytest.raises(InvalidUnlockKey, match=r"^invalid key string$"):
        unlock.parse_unlock_key(text)


def test_unlock_key_of_another_size_is_well_formed() -> None:
    assert unlock.parse_unlock_key("SWMKEY-1-") == b""
    assert unlock.parse_unlock_key("SWMKEY-1-AAAA\n") == bytes(3)
    assert len(unlock.new_unlock_key(SeededEntropy(1))) == 32
