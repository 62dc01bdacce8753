"""The Raft core's transcripts: what is sent, written and applied, line by line.

`RAFT_TRANSCRIPTS=rewrite pytest tests/transcripts` writes the present output into the files;
review the difference like code.
"""

import os
from pathlib import Path

import pytest

from tests.harness.raft_script import RULE, Script, rewritten

FILES = sorted((Path(__file__).parent / "raft").glob("*.txt"))


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_transcript(path):
    now = rewritten(path)
    if os.environ.get("RAFT_TRANSCRIPTS") == "rewrite":
        path.write_text(now)
    assert now == path.read_text()


def test_there_are_transcripts():
    assert len(FILES) >= 12
    assert all(RULE in path.read_text() for path in FILES)


def test_a_changed_output_is_noticed(tmp_path):
    path = tmp_path / "wrong.txt"
    path.write_text("members 1\n----\nok\n\ncampaign 1\nstabilize\n----\nnothing happens\n")
    assert rewritten(path) != path.read_text()
    assert "1 term 2 leader: leads" in rewritten(path)


def test_refusals_are_printed():
    script = Script()
    script.run("members 3")
    assert script.run("propose 1 x").startswith("ProposalDropped: ")
    with pytest.raises(KeyError):
        script.run("dance 1")
