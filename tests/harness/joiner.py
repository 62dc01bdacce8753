"""A process that joins or renews with our client and says what came of it, as JSON.

    python -m tests.harness.joiner {STATE_DIR MANAGER_ADDR TOKEN}...     TOKEN "": renew

A process of its own, because gRPC's threads stay in the network namespace they were born in.
"""

from __future__ import annotations

import asyncio
import json
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from swarmd.base.clock import SystemClock
from swarmd.base.entropy import SystemEntropy
from swarmd.base.errors import SwarmError
from swarmd.node.identity import IdentityClient, Request
from swarmd.node.remotes import Remote, Remotes
from swarmd.node.statedir import KeyStore, StateDir
from swarmd.rpc.client import dial
from tests.harness.lan import Host

ROOT = Path(__file__).parents[2]


def join(host: Host, state: Path, addr: str, token: str = "") -> dict[str, Any]:
    """Join (with a token) or renew (without) from `host`; the answer of `attempt`."""
    return join_each(host, (state, addr, token))[0]


def join_each(host: Host, *attempts: tuple[Path, str, str]) -> list[dict[str, Any]]:
    """The same for several (state directory, address, token), one after the other."""
    arguments = [str(part) for each in attempts for part in each]
    done = host.run(
        [sys.executable, "-m", "tests.harness.joiner", *arguments],
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    )
    answers: list[dict[str, Any]] = json.loads(done.stdout)
    return answers


async def attempt(state: StateDir, addr: str, token: str) -> dict[str, Any]:
    """Do it; errors become `{"error": kind, "message": text}`."""
    entropy = SystemEntropy()
    client = IdentityClient(dial, Remotes([Remote("", addr)]), SystemClock(), entropy)
    store = KeyStore(state, entropy)
    try:
        if token:
            root_pem, request = await client.download_root(token), Request(token=token)
        else:
            root_pem, request = state.root_pem() or b"", Request(current=store.open())
        granted = await client.obtain(root_pem, request)
    except SwarmError as error:
        return {"error": type(error).__name__, "message": error.message}
    state.save_root(granted.root_pem)
    store.write(granted.identity.pair)  # not locked, so that the test can read it back
    return {
        "node_id": granted.identity.node_id,
        "role": granted.identity.role,
        "issuer": granted.issuer.public_key.hex(),
        "kek": granted.kek.key.hex(),
        "kek_version": granted.kek.version,
    }


async def attempts(arguments: Sequence[str]) -> list[dict[str, Any]]:
    """One attempt after the other."""
    return [
        await attempt(StateDir(Path(arguments[at])), *arguments[at + 1 : at + 3])
        for at in range(0, len(arguments), 3)
    ]


def main() -> None:
    """Run the attempts of the command line."""
    print(json.dumps(asyncio.run(attempts(sys.argv[1:]))))


if __name__ == "__main__":
    main()
