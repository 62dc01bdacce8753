"""The `swarmd` command: options, then the daemon."""

from __future__ import annotations

import sys


def main() -> None:
    """Console script. Exit status: 0 clean stop, 1 failed, 2 usage."""
    if sys.argv[1:] in (["--version"], ["-v"]):
        from swarmd import VERSION

        sys.stdout.write(f"swarmd version {VERSION}\n")
        return
    from swarmd.daemon.options import command

    command.main(prog_name="swarmd")


if __name__ == "__main__":
    main()
