"""Writes what the pages show anew: `python -m documents`; with names, only these screens and moving pictures."""

import sys

from documents import diagrams, movie, os_errors, screens
from multicast_expert.testing import enter_private_network


def main(names: list[str]) -> None:
    """Write all of it, or the screens and the moving pictures of these names."""
    enter_private_network()
    if not names:
        diagrams.write()
        os_errors.PAGE.write_text(os_errors.page(), encoding="utf-8")
    screens.write([name for name in screens.SCREENS if name in names or not names])
    movie.write([name for name in movie.MOVIES if name in names or not names])


if __name__ == "__main__":
    main(sys.argv[1:])
