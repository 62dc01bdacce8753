"""Named maxima that more than one room relies on. Numbers are the reference's unless said."""

from __future__ import annotations

MIB = 1 << 20

# A marshalled store request in one Raft entry (1.5 MiB) and what one batch may fill of it.
entry_bytes_max = 3 * MIB // 2
batch_bytes_max = entry_bytes_max * 3 // 4
changes_per_entry_max = 200

# One gRPC message received by a manager; stock senders cut snapshots at 4 MiB.
receive_bytes_max = 8 * MIB
chunk_bytes_max = 4 * MIB

# Ours: how many events one slow watcher may fall behind before it is cut off.
watch_events_max = 10_000
