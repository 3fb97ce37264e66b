"""What the network tests share: a lab for each test."""

from collections.abc import Iterator

import pytest

from network.faults import report_ports_as
from network.traffic import TwoWires, two_wires


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
