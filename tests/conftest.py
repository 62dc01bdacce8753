"""How Hypothesis draws: for the gate always the same, for `make nightly` anew each time.

No example has a deadline: on a busy machine any of them may take a while once.
"""

from __future__ import annotations

from hypothesis import settings

settings.register_profile("gate", deadline=None, derandomize=True)
settings.register_profile("nightly", deadline=None, print_blob=True)
settings.load_profile("gate")
