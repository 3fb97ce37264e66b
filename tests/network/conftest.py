"""What the network tests share: a lab for each test, and programs that were written by others."""

from collections.abc import Callable, Iterator

import pytest

from multicast_expert.system import netlink
from multicast_expert.testing.private_network import find_tool
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


def reported_as(kind: bytes) -> Callable[[netlink.Message], netlink.Message]:
    """Read a port of a bridge as that of another kind: no kernel module is needed for that."""
    port_of_bridge = b"\x0b\0\x04\0bridge\0"
    assert len(kind) <= 6
    return lambda message: message._replace(
        body=message.body.replace(port_of_bridge, b"\x0b\0\x04\0" + kind.ljust(7, b"\0"))
    )


@pytest.fixture(params=["bond", "team", "vrf"])
def port_kind(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """Have the kernel's messages say that ports of bridges are ports of something else."""
    kind: str = request.param
    rewrite, usual = reported_as(kind.encode()), netlink.messages

    def messages(data: bytes) -> Iterator[netlink.Message]:
        return map(rewrite, usual(data))

    monkeypatch.setattr(netlink, "messages", messages)
    return kind
