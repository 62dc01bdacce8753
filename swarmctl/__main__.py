"""Entry point. Answers `--version` by itself, since importing the rest takes longer."""

from __future__ import annotations

import sys
from collections.abc import Sequence


def main(args: Sequence[str] | None = None) -> int:
    """Run one command line; returns the exit code."""
    words = list(sys.argv[1:] if args is None else args)
    if words in (["--version"], ["-v"]):
        from swarmctl import __version__

        print(f"swarmctl version {__version__}")
        return 0
    from swarmctl.cli import run

    return run(words)


if __name__ == "__main__":
    sys.exit(main())
