"""The program of long runs: progress, summary, and the line that repeats a failing seed."""

from collections import Counter

import pytest

from tests.sim import nightly


def odd(seed):
    if seed % 2:
        raise AssertionError(f"seed {seed} at 1.00: odd\nand its last events")
    return nightly.Report(Counter(even=1), {"seed": (float(seed),)})


def suites(*kinds):
    return (nightly.Suite("odd", "even seeds hold", 4, odd, kinds),)


def test_all_suites_run_and_tell(capsys):
    assert nightly.main(["--seeds", "2", "--start", "5", "--jobs", "2"]) == 0
    out = capsys.readouterr().out
    assert "raft: Raft members in bad worlds, 2 seeds" in out
    assert "pace: swarmd and stock timing, 2 seeds" in out
    assert "crash" in out and "way back to work" in out and out.count("failed: none") == 2


def test_a_failing_seed_is_told_with_the_way_to_repeat_it(monkeypatch, capsys):
    monkeypatch.setattr(nightly, "SUITES", suites())
    assert nightly.main(["--jobs", "1"]) == 1
    out = capsys.readouterr().out
    assert "FAILED seed 3 at 1.00: odd\n" in out
    assert "python -m tests.sim.nightly --only odd --seed 3\n" in out
    assert "failed: [1, 3]" in out and "n 2, median 0.00" in out and "most 2.00" in out
    assert nightly.main(["--only", "odd", "--seed", "3"]) == 1
    assert "its last events" in capsys.readouterr().out
    assert nightly.main(["--only", "odd", "--seed", "2"]) == 0


@pytest.mark.parametrize("enough", [2, 3])
def test_a_kind_that_never_happens_fails_a_long_run(monkeypatch, capsys, enough):
    monkeypatch.setattr(nightly, "SUITES", suites("even", "blue moon"))
    monkeypatch.setattr(nightly, "COVERING_SEEDS", enough)
    status = nightly.main(["--only", "odd", "--start", "2", "--seeds", "1", "--jobs", "1"])
    assert status == 0
    status = nightly.run(suites("even", "blue moon"), 2, 2, 1)
    assert status == 1, "seed 3 fails anyway"
    assert ("NEVER HAPPENED: blue moon" in capsys.readouterr().out) == (enough == 2)
