"""A stock engine behind our socket, driven by the stock client: run, exec, attach, logs, copy."""

from __future__ import annotations

import hashlib
import os
import pty
import select
import shutil
import subprocess
import tarfile
import time
from collections.abc import AsyncIterator, Iterator
from io import BytesIO
from pathlib import Path

import pytest

from swarmd.base.aio import Lane
from tests.harness.engines import Engine, require_engine
from tests.wire.rest_kit import FakeBackend, Rest, serving

pytestmark = pytest.mark.engine
BUSYBOX = str(shutil.which("busybox"))
SIZE = str(Path(BUSYBOX).stat().st_size) if Path(BUSYBOX).exists() else ""
RUN = ("run", "--rm", "--network", "none")


@pytest.fixture(scope="module")
def engine() -> Iterator[Engine]:
    """An engine without network but with a small image, `bb:1`."""
    require_engine()
    with Engine("rest") as engine:
        archive = BytesIO()
        with tarfile.open(fileobj=archive, mode="w") as tar:
            tar.add(BUSYBOX, "bin/busybox")
            for name in ("sh", "cat", "echo", "sleep", "wc", "seq", "stty"):
                link = tarfile.TarInfo(f"bin/{name}")
                link.type, link.linkname = tarfile.SYMTYPE, "busybox"
                tar.addfile(link)
        command = ["docker", "-H", f"unix://{engine.socket}", "import", "-", "bb:1"]
        subprocess.run(command, input=archive.getvalue(), check=True, capture_output=True)
        yield engine


@pytest.fixture
async def docker(engine: Engine, tmp_path: Path) -> AsyncIterator[Docker]:
    """The stock client, pointed at our socket."""
    lane = Lane("docker")
    async with serving(tmp_path, FakeBackend(), engine=engine.socket) as rest:
        yield Docker(rest, lane)
    lane.close()


class Docker:
    """Runs the stock client in a thread, since our server lives in this process."""

    def __init__(self, rest: Rest, lane: Lane) -> None:
        self.base = ["docker", "-H", f"unix://{rest.path}"]
        self.lane = lane

    async def __call__(self, *args: str, data: bytes = b"") -> str:
        """Run to the end; standard output."""

        def run() -> bytes:
            done = subprocess.run(
                [*self.base, *args], input=data, capture_output=True, timeout=60, check=False
            )
            assert done.returncode == 0, done.stderr
            return done.stdout

        return (await self.lane.run(run)).decode()

    async def on_a_terminal(self, *args: str, say: bytes, until: bytes) -> bytes:
        """Run on a pseudo terminal, type `say`, read until `until` was printed."""

        def run() -> bytes:
            main, side = pty.openpty()
            with subprocess.Popen(
                [*self.base, *args], stdin=side, stdout=side, stderr=side, start_new_session=True
            ) as process:
                os.close(side)
                try:
                    return _talk(main, say, until)
                finally:
                    process.kill()
                    os.close(main)

        return await self.lane.run(run)


def _talk(terminal: int, say: bytes, until: bytes) -> bytes:
    seen = b""
    said = False
    deadline = time.monotonic() + 60
    while until not in seen:
        assert time.monotonic() < deadline, seen
        if select.select([terminal], [], [], 0.2)[0]:
            seen += os.read(terminal, 4096)
        # The shell is there when its prompt is.
        if not said and seen.rstrip().endswith((b"#", b"\x1b[6n")):
            os.write(terminal, say)
            said = True
    return seen


async def test_run_with_input_and_output(docker: Docker) -> None:
    assert await docker(*RUN, "bb:1", "echo", "hello") == "hello\n"
    assert await docker(*RUN, "-i", "bb:1", "cat", data=b"some input") == "some input"
    counted = await docker(*RUN, "-i", "bb:1", "wc", "-c", data=bytes(3_000_000))
    assert counted.strip() == "3000000"
    numbers = "".join(f"{n}\n" for n in range(1, 100_001))
    printed = await docker(*RUN, "bb:1", "seq", "1", "100000")
    assert hashlib.sha256(printed.encode()).digest() == hashlib.sha256(numbers.encode()).digest()


async def test_run_on_a_terminal(docker: Docker) -> None:
    seen = await docker.on_a_terminal(
        *RUN, "-it", "bb:1", "sh", say=b"echo tty-$((40+2))\n", until=b"tty-42"
    )
    assert b"tty-42" in seen


async def test_exec_attach_logs_and_copies(docker: Docker) -> None:
    script = "echo ready; read line; echo got $line; sleep 1000"
    name = (await docker("run", "-d", "-i", "--network", "none", "bb:1", "sh", "-c", script))[:12]
    try:
        assert await docker("exec", "-i", name, "cat", data=b"to exec") == "to exec"
        assert await docker("exec", name, "echo", "x") == "x\n"
        assert (await docker("exec", name, "sh", "-c", "wc -c < /bin/busybox")).strip() == SIZE
        assert "ready\n" in await docker("logs", name)
        copied = await docker("cp", f"{name}:/bin/sh", "-")
        assert "busybox" in copied
        assert name in await docker("ps")
    finally:
        await docker("rm", "-f", name)


async def test_the_client_uses_what_the_engine_speaks(docker: Docker) -> None:
    shown = await docker("version", "--format", "{{.Client.APIVersion}} {{.Server.APIVersion}}")
    engines, ours = shown.split()
    assert engines == ours
    assert "swarmd" in await docker("version")
    assert "Swarm: active" in await docker("info")
    assert "bb" in await docker("images")
    assert "none" in await docker("network", "ls")
