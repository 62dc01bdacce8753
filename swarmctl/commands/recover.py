"""`swarmctl recover --dry-run`: what a manager without quorum knows, and what force would do."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from swarmctl.command import Call, Command
from swarmctl.errors import CliError, only_swarmd
from swarmctl.flags import Flag
from swarmctl.kinds import BOOL
from swarmctl.tabs import align

Found = Mapping[str, Any]

_WAY = "swarmctl init --force-new-cluster"


def _recover(call: Call) -> None:
    if not call.given["dry-run"]:
        raise CliError(
            "this command changes nothing by itself: look first with --dry-run, then use\n"
            f"`{_WAY}` on the manager that is to go on"
        )
    with only_swarmd("tell what a recovery would do"):
        found = call.client.get("/swarmd/backup/recovery").json()
    for line in (*_known(found), "", *_outcome(found), "", "Nothing was changed."):
        call.say(line)


def _known(found: Found) -> Iterator[str]:
    yield f"Swarm {found['ClusterID']} as this manager ({found['NodeID']}) knows it:"
    yield ""
    rows = ["NODE ID\tHOSTNAME\tADDRESS\tSTATUS"]
    for one in found["Managers"]:
        status = "reachable" if one["Reachable"] else "unreachable"
        notes = [word for word, key in (("this node", "Self"), ("leader", "Leader")) if one[key]]
        status = ", ".join([status, *notes])
        rows.append(f"{one['NodeID']}\t{one['Hostname']}\t{one['Addr']}\t{status}")
    yield align("\n".join(rows))
    yield ""
    lost = "" if _has_quorum(found) else ": the quorum is lost"
    total = len(found["Managers"])
    yield f"Quorum: {found['Reachable']} of {total} reachable, {found['Quorum']} needed{lost}"
    yield (
        f"Log:    term {found['RaftTerm']}, committed up to entry {found['CommitIndex']}, "
        f"last entry {found['LastIndex']}"
    )


def _has_quorum(found: Found) -> bool:
    return int(found["Reachable"]) >= int(found["Quorum"])


def _outcome(found: Found) -> Iterator[str]:
    if _has_quorum(found):
        yield "The managers can elect a leader: there is nothing to recover."
        return
    yield "First try to bring one of the unreachable managers back: then nothing is lost."
    yield f"If that cannot be done, `{_WAY}` on this node would"
    yield "- keep the swarm's id, certificate authority, join tokens, nodes and all other objects,"
    yield f"  as of entry {found['CommitIndex']}"
    if found["Dropped"]:
        yield f"- drop {found['Dropped']} entries after it that were not committed"
    for one in found["Managers"]:
        if not one["Self"]:
            name = one["Hostname"] or one["NodeID"]
            yield f"- remove {name} ({one['Addr']}) from the managers for good"
    yield "Removed managers have to leave (`--force`) and join again before they take part."


RECOVER = Command(
    "recover",
    "[OPTIONS]",
    "Show what is left of a swarm without quorum, and the way back",
    _recover,
    flags=(Flag("dry-run", BOOL, "Only show what would be done", value=False),),
)
