"""A process that joins or renews with our client and says what came of it, as JSON.

    python -m tests.harness.joiner STATE_DIR MANAGER_ADDR [TOKEN]

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
    arguments: Sequence[str] = [str(state), addr, *([token] if token else [])]
    done = host.run(
        [sys.executable, "-m", "tests.harness.joiner", *arguments],
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    )
    answer: dict[str, Any] = json.loads(done.stdout)
    return answer


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


def main() -> None:
    """Run one attempt."""
    state, addr, token = sys.argv[1], sys.argv[2], (sys.argv[3:] or [""])[0]
    print(json.dumps(asyncio.run(attempt(StateDir(Path(state)), addr, token))))


if __name__ == "__main__":
    main()
