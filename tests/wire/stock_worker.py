"""A worker made of nothing but our client, run in a network namespace by test_front_stock."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import sys

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

from swarmd import api
from swarmd.base.errors import PermissionDenied
from swarmd.rpc.client import dial
from swarmd.rpc.dialled import _shake
from swarmd.rpc.tls import Credentials, peer_chain, probing_context

PEM = serialization.Encoding.PEM


class Worker:
    """One node of the stock cluster."""

    def __init__(self, addr: str, token: str) -> None:
        self.addr = addr
        self.token = token
        self.credentials = Credentials(None)

    async def root(self) -> str:
        async with contextlib.AsyncExitStack() as stack:
            caller = await dial(self.addr, Credentials(None))
            stack.push_async_callback(caller.close)
            answer = await caller.unary(
                "CA/GetRootCACertificate", api.GetRootCACertificateRequest(), timeout=5
            )
        self.credentials = Credentials(answer.certificate)
        return hashlib.sha256(answer.certificate).hexdigest()

    async def join(self) -> str:
        key = ec.generate_private_key(ec.SECP256R1())
        request = x509.CertificateSigningRequestBuilder().subject_name(x509.Name([]))
        csr = request.sign(key, hashes.SHA256()).public_bytes(PEM)
        caller = await dial(self.addr, self.credentials, server_name="swarm-ca")
        issue = api.IssueNodeCertificateRequest(csr=csr, token=self.token)
        issued = await caller.unary("NodeCA/IssueNodeCertificate", issue, timeout=5)
        poll = api.NodeCertificateStatusRequest(node_id=issued.node_id)
        status = await caller.unary("NodeCA/NodeCertificateStatus", poll, timeout=10)
        await caller.close()
        assert status.certificate.csr == csr
        self.credentials = Credentials(
            self.credentials.roots_pem,
            status.certificate.certificate,
            key.private_bytes(PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()),
        )
        return str(issued.node_id)

    async def session(self) -> str:
        caller = await dial(self.addr, self.credentials)
        description = api.NodeDescription(hostname="ours")
        request = api.SessionRequest(description=description)
        stream = caller.server_stream("Dispatcher/Session", request)
        first = await anext(stream)
        beat = api.HeartbeatRequest(session_id=first.session_id)
        answer = await caller.unary("Dispatcher/Heartbeat", beat, timeout=5)
        assert answer.period.ToMilliseconds() > 0
        return str(first.node.id)

    async def look(self) -> str:
        host, _, port = self.addr.rpartition(":")
        link = await _shake(host, int(port), probing_context(), "swarm-manager")
        seen = f"{link.tls.selected_alpn_protocol()} {len(peer_chain(link.tls))}"
        link.abort()
        return seen

    async def refused(self) -> str:
        caller = await dial(self.addr, self.credentials)
        with contextlib.suppress(PermissionDenied):
            await caller.unary("Control/ListNodes", api.ListNodesRequest(), timeout=5)
            return "allowed"
        await caller.close()
        return ""


async def main() -> None:
    worker = Worker(*sys.argv[1:])
    loop = asyncio.get_running_loop()
    while order := (await loop.run_in_executor(None, sys.stdin.readline)).strip():
        print("ok", await getattr(worker, order)(), flush=True)


if __name__ == "__main__":
    asyncio.run(main())
