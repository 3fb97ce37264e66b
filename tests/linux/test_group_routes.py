"""Where datagrams go when no interface is named: the default gateway's interface, or that of a route for the group."""

import contextlib
import socket
import warnings
from collections.abc import Iterator

import anyio
import pytest

from linux.plain_sockets import FAMILY, member_on, nothing_for
from multicast_expert import AsyncMcastTxSocket, McastTxSocket, MulticastExpertError, MulticastWarning
from multicast_expert.testing import Lab

PORT = 5000
GROUP = {4: "239.1.2.3", 6: "ff15::1:2:3"}
OTHER = {4: "239.7.0.1", 6: "ff18::1"}

both_versions = pytest.mark.parametrize("version", [4, 6], ids=["IPv4", "IPv6"])


class Routed:
    """A host with eth0 and eth1, whose routes a test sets, and the far end of each cable."""

    def __init__(self, lab: Lab) -> None:
        self.host = lab.host("near")
        self.far = [
            lab.link(
                self.host,
                lab.host(f"far{number}"),
                interface=f"eth{number}",
                ipv4=(f"10.1.{number}.1/24", f"10.1.{number}.2/24"),
                ipv6=(f"fd01:{number}::1/64", f"fd01:{number}::2/64"),
            )[1]
            for number in range(2)
        ]

    def default(self, interface: str) -> None:
        """Let this interface reach the internet."""
        number = interface[-1]
        self.host.ip(f"route add default via 10.1.{number}.2", f"route add default via fd01:{number}::2")

    def group(self, interface: str, version: int, network: str | None = None) -> None:
        """Lead groups out of this interface. Of IPv6 the kernel has routes for all groups in its table `local`."""
        if version == 4:
            self.host.ip(f"route add {network or '239.1.0.0/16'} dev {interface}")
        else:
            self.host.ip(f"route add {network or 'ff15::/16'} dev {interface} table local")

    @contextlib.contextmanager
    def judges(self, group: str) -> Iterator[dict[str, socket.socket]]:
        """Who hears what leaves by each interface."""
        with contextlib.ExitStack() as opened:
            yield {far.peer.name: opened.enter_context(member_on(far, group, PORT)) for far in self.far}


@pytest.fixture
def routed() -> Iterator[Routed]:
    """The host, without routes but those to its neighbours; the test runs in it."""
    with Lab() as lab:
        made = Routed(lab)
        with made.host.entered():
            yield made


def check_it_leaves_by(routed: Routed, sender: McastTxSocket, interface: str, group: str) -> None:
    """What is sent to the group comes out of this interface only, from its address."""
    with routed.judges(group) as judges:
        sender.sendto(b"x", (group, PORT))
        data, (source, *_) = judges.pop(interface).recvfrom(100)
        assert data == b"x"
        own = [address.split("/")[0] for address in routed.host.interface(interface).addresses]
        assert ":" in group or source in own
        assert all(nothing_for(judge) for judge in judges.values())


@both_versions
def test_the_default_route_goes_before_that_of_the_group(routed: Routed, version: int) -> None:
    """A group route that leads elsewhere is not taken, and one warning names both interfaces."""
    routed.default("eth1")
    routed.group("eth0", version)
    with pytest.warns(MulticastWarning) as caught:
        sender = McastTxSocket(FAMILY[version], [GROUP[version], GROUP[version][:-1] + "4"])
    (warning,) = caught
    assert str(warning.message) == (
        f"{GROUP[version]} and 1 more will be sent out of eth1, the interface of the default route, but this host has "
        "a route for that out of eth0: name the interface that you mean with iface=."
    )
    assert warning.filename == __file__
    with sender:
        check_it_leaves_by(routed, sender, "eth1", GROUP[version])


@both_versions
def test_one_that_agrees_is_no_news(routed: Routed, version: int) -> None:
    """No warning where the group's own route leads to the same interface, or where an interface is named."""
    routed.default("eth1")
    routed.group("eth1", version)
    with McastTxSocket(FAMILY[version], [GROUP[version]]) as sender:
        check_it_leaves_by(routed, sender, "eth1", GROUP[version])
    with McastTxSocket(FAMILY[version], [GROUP[version]], "eth0") as sender:
        check_it_leaves_by(routed, sender, "eth0", GROUP[version])


@both_versions
def test_a_group_route_alone(routed: Routed, version: int) -> None:
    """Without a default route the group's own route is taken, of IPv4 with the source address that it names."""
    with pytest.raises(MulticastExpertError, match=f"no default IPv{version} route and none for the group"):
        McastTxSocket(FAMILY[version], [GROUP[version]])
    routed.host.ip("addr add 10.1.1.9/24 dev eth1")
    routed.group("eth1", version)
    with McastTxSocket(FAMILY[version], [GROUP[version]]) as sender:
        check_it_leaves_by(routed, sender, "eth1", GROUP[version])
    if version == 4:
        routed.host.ip("route replace 239.1.0.0/16 dev eth1 src 10.1.1.9")
        with McastTxSocket(FAMILY[4], [GROUP[4]]) as sender:
            assert sender.getsockname()[0] == "10.1.1.9"
        routed.host.ip("route replace 239.1.0.0/16 dev eth1 src 10.1.0.1")
        with McastTxSocket(FAMILY[4], [GROUP[4]]) as sender:
            assert (sender.network_interface.machine_name, sender.getsockname()[0]) == ("eth1", "10.1.1.1")


@both_versions
def test_a_route_for_all_groups(routed: Routed, version: int) -> None:
    """It leads what a sender sends that was made without groups; a group with another route gets one warning."""
    with pytest.raises(MulticastExpertError, match=f"no default IPv{version} route and none for all groups"):
        McastTxSocket(FAMILY[version])
    routed.group("eth1", version, {4: "224.0.0.0/4", 6: "ff00::/8 metric 1"}[version])
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        with McastTxSocket(FAMILY[version]) as sender:
            check_it_leaves_by(routed, sender, "eth1", OTHER[version])
            routed.group("eth0", version)
            with pytest.raises(MulticastWarning, match=r"out of eth1, the interface for all groups, .* out of eth0"):
                sender.sendto(b"x", (GROUP[version], PORT))


@both_versions
def test_group_routes_that_disagree(routed: Routed, version: int) -> None:
    """Without a default route, the first group that has a route decides, and a warning names the other."""
    routed.group("eth0", version)
    routed.group("eth1", version, {4: "239.7.0.0/16", 6: "ff18::/16"}[version])
    with pytest.warns(MulticastWarning, match=rf"{OTHER[version]} .* out of eth0, .*{GROUP[version]}.* out of eth1"):
        sender = McastTxSocket(FAMILY[version], [GROUP[version], OTHER[version]])
    assert [iface.machine_name for iface in sender.network_interfaces] == ["eth0"]


@both_versions
def test_groups_without_a_route(routed: Routed, version: int) -> None:
    """Without a default route, they go where the route of another group leads, and a warning says so."""
    routed.group("eth1", version)
    with pytest.warns(MulticastWarning) as caught:
        sender = McastTxSocket(FAMILY[version], [OTHER[version], GROUP[version]])
    (warning,) = caught
    assert str(warning.message) == (
        f"{OTHER[version]} will be sent out of eth1, where the route for {GROUP[version]} leads, but this host has no "
        "route for that: name the interface that you mean with iface=."
    )
    with sender:
        check_it_leaves_by(routed, sender, "eth1", OTHER[version])


def test_a_line_that_warns_twice(routed: Routed) -> None:
    """Python shows a warning once for each line and text, and so it does this one: another group is another text."""
    routed.default("eth1")
    routed.group("eth0", 4)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("default")
        for group in ("239.1.2.3", "239.1.2.3", "239.1.2.4", "239.1.2.3"):
            McastTxSocket(socket.AF_INET, [group])
    assert [str(each.message).partition(" ")[0] for each in caught] == ["239.1.2.3", "239.1.2.4"]


def test_routes_that_reject(routed: Routed) -> None:
    """A route that leads nowhere is none."""
    routed.host.ip("route add unreachable 239.1.0.0/16", "route add blackhole 239.7.0.0/16")
    for group in (GROUP[4], OTHER[4]):
        with pytest.raises(MulticastExpertError, match="none for the group"):
            McastTxSocket(socket.AF_INET, [group])


@both_versions
@pytest.mark.parametrize("face", ["blocking", "asyncio"])
def test_any_group(routed: Routed, version: int, face: str) -> None:
    """A sender for any group warns when it first sends to one that a route leads elsewhere, and never again."""
    routed.default("eth1")
    routed.group("eth0", version)
    address = GROUP[version], PORT

    async def send() -> None:
        async with AsyncMcastTxSocket(FAMILY[version]) as sender:
            await sender.sendto(b"x", (OTHER[version], PORT))
            with pytest.warns(MulticastWarning, match=f"{GROUP[version]} .* out of eth1, .* out of eth0"):
                await sender.sendto(b"x", address)
            assert await sender.send_many([b"x"], address) == 1

    if face == "asyncio":
        anyio.run(send)
        return
    with McastTxSocket(FAMILY[version]) as sender:
        sender.sendto(b"x", (OTHER[version], PORT))
        with pytest.warns(MulticastWarning, match=f"{GROUP[version]} .* out of eth1, .* out of eth0"):
            sender.sendto(b"x", address)
        assert sender.send_many([b"x"], address) == 1
        check_it_leaves_by(routed, sender, "eth1", GROUP[version])


def test_it_is_cheap_for_many_groups(routed: Routed, monkeypatch: pytest.MonkeyPatch) -> None:
    """All groups are asked about over one netlink socket."""
    from multicast_expert.system import linux

    routed.default("eth1")
    made = []
    usual = linux.Channel.__init__
    monkeypatch.setattr(
        linux.Channel, "__init__", lambda self, *arguments: [made.append(self), usual(self, *arguments)][1]
    )
    McastTxSocket(socket.AF_INET, [GROUP[4]])
    for_one = len(made)
    McastTxSocket(socket.AF_INET, [f"239.9.{high}.{low}" for high in range(4) for low in range(1, 251)])
    assert len(made) == 2 * for_one
