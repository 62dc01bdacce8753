"""Hosts in namespaces of their own, wired to a private switch; nothing leaves the machine.

A `Host` is one network, mount and host-name namespace kept alive by a small holder process.
The holder waits on a pipe from us: if the test run dies, even by SIGKILL, the holder ends
everything that still lives in its namespaces, so no daemon outlives its test.
"""

from __future__ import annotations

import contextlib
import ctypes
import itertools
import os
import random
import shutil
import signal
import subprocess
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Self

_numbers = itertools.count(1)
_CLONE_NEWNET = 0x40000000

# Read until the test run is gone, then end what is left in our namespaces.
_HOLDER = """
ip link set lo up
echo ready
read -r _
me=$(readlink /proc/self/ns/net)
for round in 1 2 3; do
  for p in /proc/[0-9]*; do
    if [ "$(readlink $p/ns/net 2>/dev/null)" = "$me" ] && [ "${p#/proc/}" != $$ ]; then
      kill -9 "${p#/proc/}" 2>/dev/null
    fi
  done
done
"""


def missing() -> str | None:
    """Why namespaces cannot be used here, or None."""
    if os.geteuid() != 0:
        return "network namespaces need root"
    for tool in ("unshare", "nsenter", "ip"):
        if shutil.which(tool) is None:
            return f"{tool} is not installed"
    return None


def _setns(fd: int) -> None:
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.setns(fd, _CLONE_NEWNET) != 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number), "setns")


class Host:
    """One machine as far as network, mounts and host name go. Use as a context manager."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.ip = "127.0.0.1"  # replaced by the LAN's address once plugged in
        self.holder = 0
        self._process: subprocess.Popen[bytes] | None = None
        self._programs: list[subprocess.Popen[Any]] = []
        self._port: tuple[Host, str] | None = None
        # Two programs that change the rules at the same time undo each other's changes.
        self._rules = threading.Lock()

    def __enter__(self) -> Self:
        self._process = subprocess.Popen(
            [
                *["unshare", "--net", "--uts", "--mount", "--propagation", "private", "sh", "-c"],
                f"hostname {self.name}\n{_HOLDER}",
            ],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            start_new_session=True,
        )
        assert self._process.stdout is not None
        if self._process.stdout.readline() != b"ready\n":
            raise RuntimeError(f"host {self.name}: no namespace")
        self.holder = self._process.pid
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def close(self) -> None:
        """End every process of this host, its mounts and its namespaces."""
        if self._process is None:
            return
        self.kill_all()
        for program in self._programs:
            program.wait(10)
            for pipe in (program.stdin, program.stdout, program.stderr):
                if pipe is not None:
                    pipe.close()
        self.kill_all()  # what those just ended had started meanwhile
        assert self._process.stdin is not None and self._process.stdout is not None
        # Its own search through all processes is for a run that died; it takes long under load.
        self._process.kill()
        self._process.wait(30)
        self._process.stdin.close()
        self._process.stdout.close()
        self._process = None

    def kill_all(self, marked: str = "") -> None:
        """SIGKILL every process of this host, or those with `marked` in their command line."""
        for pid in self._alive():
            with contextlib.suppress(OSError):
                if marked in Path(f"/proc/{pid}/cmdline").read_text():
                    os.kill(pid, signal.SIGKILL)

    def _alive(self) -> list[int]:
        """Processes in our namespaces and their descendants (containers), holder excluded."""
        mine = {os.readlink(f"/proc/{self.holder}/ns/{kind}") for kind in ("net", "mnt")}
        children: dict[int, list[int]] = {}
        found: list[int] = []
        for entry in os.listdir("/proc"):
            if not entry.isdigit():
                continue
            with contextlib.suppress(OSError, IndexError):
                stat = Path(f"/proc/{entry}/stat").read_text()
                children.setdefault(int(stat.rsplit(")", 1)[1].split()[1]), []).append(int(entry))
                if {os.readlink(f"/proc/{entry}/ns/{kind}") for kind in ("net", "mnt")} & mine:
                    found.append(int(entry))
        for pid in found:
            found.extend(child for child in children.get(pid, ()) if child not in found)
        return [pid for pid in found if pid not in (self.holder, os.getpid())]

    def enter(self, *, cwd: str | os.PathLike[str] | None = None) -> list[str]:
        """The command prefix that runs a program on this host (it execs: same pid)."""
        where = os.fspath(cwd) if cwd is not None else os.getcwd()
        return ["nsenter", "-t", str(self.holder), "-n", "-u", "-m", f"--wd={where}", "--"]

    def run(
        self,
        cmd: Sequence[str],
        *,
        check: bool = True,
        timeout: float = 60,
        env: Mapping[str, str] | None = None,
        stdin: str | None = None,
    ) -> subprocess.CompletedProcess[str]:
        """Run `cmd` here to its end; output as text. Raises with the output if it fails."""
        done = subprocess.run(
            [*self.enter(), *cmd],
            capture_output=True,
            text=True,
            timeout=timeout,
            env=dict(env) if env is not None else None,
            input=stdin if stdin is not None else "",
        )
        if check and done.returncode != 0:
            raise RuntimeError(
                f"{self.name}: {' '.join(cmd)}: exit {done.returncode}\n{done.stdout}{done.stderr}"
            )
        return done

    def popen(self, cmd: Sequence[str], **options: Any) -> subprocess.Popen[Any]:
        """Start `cmd` here; its pid is the program's own. Ended with the host at the latest."""
        cwd = options.pop("cwd", None)
        program = subprocess.Popen([*self.enter(cwd=cwd), *cmd], **options)
        self._programs.append(program)
        return program

    @contextlib.contextmanager
    def inside(self) -> Iterator[None]:
        """Put the calling thread on this host's network: sockets made here belong to it.

        Sockets keep their network after the block, so a server or client made inside goes on
        working. Do not await inside: other work of the thread would be moved as well.
        """
        before = os.open("/proc/thread-self/ns/net", os.O_RDONLY)
        target = os.open(f"/proc/{self.holder}/ns/net", os.O_RDONLY)
        try:
            _setns(target)
            yield
        finally:
            _setns(before)
            os.close(before)
            os.close(target)

    def plugged_into(self, switch: Host, port: str, ip: str) -> None:
        """Note how this host is wired (done by `Lan`)."""
        self._port = (switch, port)
        self.ip = ip

    def add_ip(self, ip: str) -> None:
        """Have one more address; it is the host's from now on."""
        self.run(["ip", "addr", "add", f"{ip}/24", "dev", "eth0"])
        self.ip = ip

    def drop_ip(self, ip: str) -> None:
        """Lose an address; connections that use it hang."""
        self.run(["ip", "addr", "del", f"{ip}/24", "dev", "eth0"])

    def change_ip(self, ip: str) -> None:
        """Have another address instead of the present one."""
        before = self.ip
        self.add_ip(ip)
        self.drop_ip(before)

    def unplug(self) -> None:
        """Pull the network cable: packets vanish, connections are not closed."""
        self._set_link("down")

    def plug(self) -> None:
        """Put the network cable back."""
        self._set_link("up")

    def deafen(self, ip: str) -> None:
        """Lose every packet from `ip`; those to it still leave: a cut in one direction."""
        with self._rules:
            self.run(["iptables", "-w", "-A", "INPUT", "-s", ip, "-j", "DROP"])

    def listen_again(self, ip: str) -> None:
        """Undo one `deafen`."""
        with self._rules:
            self.run(["iptables", "-w", "-D", "INPUT", "-s", ip, "-j", "DROP"])

    def _set_link(self, state: str) -> None:
        if self._port is None:
            raise RuntimeError(f"{self.name} is not on a LAN")
        switch, port = self._port
        switch.run(["ip", "link", "set", port, state])


class Lan:
    """A switch and its hosts, on a private 10.x.y.0/24. Use as a context manager."""

    def __init__(self) -> None:
        self._hosts: dict[str, Host] = {}
        self._spares = 0
        self._stack = contextlib.ExitStack()
        self._switch = Host(f"switch{next(_numbers)}")
        # Own namespaces cannot clash; chance only keeps clear of the engines' 10.0.x pools.
        self.prefix = f"10.{random.randint(65, 250)}.{random.randint(1, 250)}"

    def __enter__(self) -> Self:
        with contextlib.ExitStack() as stack:
            stack.enter_context(self._switch)
            self._switch.run(["ip", "link", "add", "br0", "type", "bridge"])
            self._switch.run(["ip", "link", "set", "br0", "up"])
            self._stack = stack.pop_all()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._stack.close()

    def spare_ip(self) -> str:
        """An address of this network that no host has."""
        self._spares += 1
        return f"{self.prefix}.{100 + self._spares}"

    def host(self, name: str) -> Host:
        """The host called `name`, made and wired on first use; interface eth0."""
        if name in self._hosts:
            return self._hosts[name]
        host = self._stack.enter_context(Host(name))
        number = len(self._hosts) + 1
        self._hosts[name] = host
        port, ip = f"port{number}", f"{self.prefix}.{number + 1}"
        veth = f"ip link add {port} type veth peer name eth0 netns {host.holder}"
        self._switch.run(veth.split())
        self._switch.run(["ip", "link", "set", port, "master", "br0", "up"])
        host.run(["ip", "addr", "add", f"{ip}/24", "dev", "eth0"])
        # An address that goes away must not take those added later along.
        host.run(["sysctl", "-qw", "net.ipv4.conf.all.promote_secondaries=1"])
        host.run(["ip", "link", "set", "eth0", "up"])
        host.plugged_into(self._switch, port, ip)
        return host


def wait_until(what: str, check: Any, timeout: float = 30, pause: float = 0.05) -> Any:
    """Ask `check()` again and again until it gives something true; return that."""
    end = time.monotonic() + timeout
    while True:
        answer = check()
        if answer:
            return answer
        if time.monotonic() > end:
            raise TimeoutError(f"not within {timeout} s: {what}")
        time.sleep(pause)
