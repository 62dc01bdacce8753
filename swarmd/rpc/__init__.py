"""TALKS: the only floor that imports gRPC (`wirecaller`). Start reading at `server` and `client`.

Import from the modules: `peer` and `methods` are free of gRPC, so rooms that only name a
`Peer` or a `Caller` do not pay for it.
"""

from __future__ import annotations

import os

# gRPC's C library writes to standard error, past our log set-up; it reads this at import.
os.environ.setdefault("GRPC_VERBOSITY", "NONE")
