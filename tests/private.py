"""Moves the suite into a private network before anything else. Where that is refused, nothing may reach the real one.

Systems without such networks run the tests on their loopback interfaces; on Linux, those carry no IPv6 multicast.
"""

import contextlib
import socket
import sys
from collections.abc import Iterator

import pytest

from multicast_expert.testing import LabError, enter_private_network
from multicast_expert.testing.namespaces import namespaces_exist


def refused() -> str | None:
    """Enter the private network, or return why this machine refuses it."""
    if namespaces_exist():
        try:
            enter_private_network()
        except LabError as error:
            return str(error)
    return None


REFUSED = refused()
HARMLESS = {getattr(socket, "AF_UNIX", None), getattr(socket, "AF_NETLINK", None)}
STARTS = {"subprocess.Popen", "os.fork", "os.posix_spawn", "os.system"}
running: list[list[str]] = []
"""Reasons that the running test was given, if one is running."""


def refuse(event: str, arguments: tuple[object, ...]) -> None:
    """Skip a test that opens a socket to the network, or starts a program, which could."""
    if running and (event in STARTS or (event == "socket.__new__" and arguments[1] not in HARMLESS)):
        running[-1].append(f"no private network: {REFUSED}")
        pytest.skip(running[-1][-1])


if REFUSED:
    sys.addaudithook(refuse)


@contextlib.contextmanager
def keep_off_the_network() -> Iterator[list[str]]:
    """Without a private network, refuse sockets and programs inside the block. Gives the reasons that were said."""
    running.append([])
    try:
        yield running[-1]
    finally:
        running.pop()
