"""What the network tests share: a lab for each test, and programs that were written by others."""

from collections.abc import Callable, Iterator

import pytest

from multicast_expert.testing.private_network import find_tool
from network.faults import report_ports_as
from network.traffic import TwoWires, two_wires

PACKAGES = {"iperf": "iperf", "socat": "socat", "ssmping": "ssmping", "ssmpingd": "ssmping"}
"""The Debian package of each program."""


@pytest.fixture
def program() -> Callable[[str], str]:
    """Gives the path of a program; skips the test with the reason where it is not installed."""

    def find(name: str) -> str:
        path = find_tool(name)
        if path is None:
            pytest.skip(f"the program {name} is not installed (Debian package {PACKAGES[name]})")
        return path

    return find


@pytest.fixture
def wires() -> Iterator[TwoWires]:
    """A host with eth0 and eth1, each on a switch with a talker; the test runs in that host."""
    with two_wires() as made, made.listener.entered():
        yield made


@pytest.fixture(params=["bond", "team", "vrf"])
def port_kind(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """The kind of which the ports of bridges are, as far as the kernel's messages say."""
    report_ports_as(monkeypatch, request.param)
    return str(request.param)
