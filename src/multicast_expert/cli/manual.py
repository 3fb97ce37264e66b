"""Writes the manual pages into a folder: `python -m multicast_expert.cli.manual docs/man`."""

from __future__ import annotations

import sys
from pathlib import Path

from multicast_expert import __version__
from multicast_expert.cli import COMMANDS, load
from multicast_expert.cli.render.manual import command_page, overview_page


def pages() -> dict[str, str]:
    """Return the pages by the names of their files."""
    single = {f"mcast-{name}.1": command_page(load(name), __version__, summary) for name, summary in COMMANDS.items()}
    return {"mcast.1": overview_page(__version__, COMMANDS), **single}


def main() -> None:
    """Write them into the folder that the command line names."""
    for name, page in pages().items():
        Path(sys.argv[1], name).write_text(page, encoding="ascii")


if __name__ == "__main__":
    main()
