"""One member of a cluster of pyraft or PySyncObj, as a child process of a trial.

Runs under the interpreter that has the library, so it imports nothing of this project:

    member.py pyraft ARGUMENTS-OF-PYRAFT...
    member.py pysyncobj OWN-ADDRESS OTHER-ADDRESS...
    member.py pysyncobj-serve OWN-ADDRESS OTHER-ADDRESS...

It counts the calls that make data durable and keeps the number in the file `syncs`.
"""

from __future__ import annotations

import importlib
import mmap
import os
import socketserver
import sys
import threading
import time
from pathlib import Path
from typing import Any

_count = 0


def count_syncs() -> None:
    """Count fsync, fdatasync and flushes of memory maps from now on."""
    for name in ("fsync", "fdatasync"):
        setattr(os, name, _counting(getattr(os, name)))

    class CountingMap(mmap.mmap):
        """A memory map whose flushes (msync) are counted."""

        def flush(self, *given: Any) -> None:
            """Count, then do it."""
            _note()
            super().flush(*given)

    namespace: Any = mmap
    namespace.mmap = CountingMap  # PySyncObj looks the name up when it opens its journal
    threading.Thread(target=_keep_number, daemon=True).start()


def _note() -> None:
    global _count
    _count += 1


def _counting(real: Any) -> Any:
    def counted(fd: int) -> None:
        _note()
        real(fd)

    return counted


def _keep_number() -> None:
    while True:
        Path("syncs.new").write_text(str(_count))
        os.replace("syncs.new", "syncs")
        time.sleep(0.1)


def pyraft() -> None:
    """Run a node as pyraft's own command does; it reads sys.argv."""
    raft = importlib.import_module("pyraft.raft")
    node = raft.make_default_node()
    node.start()
    node.join()


def pysyncobj(own: str, others: list[str], serve: bool) -> None:
    """Hold a replicated dictionary and answer commands on standard input.

    `serve`: say a port first, where a line "KEY VALUE" is answered "ok" once it is committed.
    """
    library = importlib.import_module("pysyncobj")
    batteries = importlib.import_module("pysyncobj.batteries")
    values = batteries.ReplDict()
    settings = library.SyncObjConf(journalFile="journal", fullDumpFile="dump")
    cluster = library.SyncObj(own, others, settings, consumers=[values])
    if serve:
        print(_serve(values), flush=True)
    for line in sys.stdin:
        print(_answer(cluster, values, own, line.split()), flush=True)


def _serve(values: Any) -> int:
    class Writer(socketserver.StreamRequestHandler):
        """One client, in a thread of its own."""

        def handle(self) -> None:
            for line in self.rfile:
                key, _, value = line.decode().rstrip("\n").partition(" ")
                values.set(key, value, sync=True, timeout=20)
                self.wfile.write(b"ok\n")

    server = socketserver.ThreadingTCPServer(("127.0.0.1", 0), Writer)
    server.daemon_threads = True
    threading.Thread(target=server.serve_forever, daemon=True).start()
    return int(server.server_address[1])


def _answer(cluster: Any, values: Any, own: str, words: list[str]) -> str:
    if words[0] == "leads":
        return str(cluster.isReady() and str(cluster._getLeader()) == own)
    if words[0] == "set":
        values.set(words[1], words[2], sync=True, timeout=20)
        return "OK"
    return str(values.get(words[1]))


def main() -> None:
    """Count, then be the member asked for."""
    count_syncs()
    kind = sys.argv.pop(1)
    if kind == "pyraft":
        pyraft()
    else:
        pysyncobj(sys.argv[1], sys.argv[2:], kind == "pysyncobj-serve")


if __name__ == "__main__":
    main()
