"""What the tests of multicast ping share."""

from collections.abc import Callable

import pytest

from multicast_expert.testing.private_network import find_tool


@pytest.fixture
def program() -> Callable[[str], str]:
    """Gives the path of a program; skips the test with the reason where it is not installed."""

    def find(name: str) -> str:
        path = find_tool(name)
        if path is None:
            pytest.skip(f"the program {name} is not installed (Debian package ssmping)")
        return path

    return find
