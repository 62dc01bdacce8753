"""The `swarm` command."""

from __future__ import annotations

from swarmd.faces.classic.commands.program import program


def main() -> None:
    """Console script. Exit status: 0 done, 1 refused or failed, 2 usage."""
    program.main(prog_name="swarm")


if __name__ == "__main__":
    main()
