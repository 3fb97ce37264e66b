"""Senders whose interface becomes a port of a bridge, whose address moves, or that are opened before it is there."""

import contextlib
import errno
import socket
from collections.abc import Callable, Iterator
from typing import Any

import anyio
import pytest

from linux.plain_sockets import FAMILY, join, member_on, nothing_for, udp_socket, until
from multicast_expert import AsyncMcastTxSocket, HealingEvent, McastTxSocket, MulticastExpertError, MulticastOSError
from multicast_expert import extension as fast
from multicast_expert.testing import Host, wait_until
from network.faults import ADDRESS, NEW_ADDRESS, leave_bridge, move_both
from network.traffic import GROUP, PORT, TwoWires, two_wires

both_versions = pytest.mark.parametrize("version", [4, 6], ids=["IPv4", "IPv6"])
PREFIX = {4: 24, 6: 64}


@pytest.fixture(params=["extension", "Python"], autouse=True)
def form(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """With the extension, which sends the short way what it has sent before, and without."""
    chosen: str = request.param
    if chosen == "Python":
        monkeypatch.setattr(fast, "native", None)
    elif fast.native is None:
        pytest.skip("the extension is not there")
    return chosen


class Speaker(McastTxSocket):
    """A sender that notes its events, and that its own host hears too."""

    def __init__(self, version: int, iface: Any, **options: Any) -> None:
        self.events: list[HealingEvent] = []
        options = {"on_event": self.events.append, "enable_external_loopback": True, **options}
        super().__init__(FAMILY[version], [GROUP[version]], iface, **options)

    def say(self, payload: bytes) -> None:
        """Send one datagram to the group."""
        self.sendto(payload, ("239.1.1.1" if self.addr_family == socket.AF_INET else "ff15::1:1", PORT))

    def wait_for_event(self, kind: str, interface: str) -> None:
        """Return when it has reported that."""
        wait_until(
            lambda: any((event.kind, event.interface) == (kind, interface) for event in self.events),
            f"{kind} {interface}, not only {self.events}",
        )


@contextlib.contextmanager
def judges(wires: TwoWires, version: int) -> Iterator[dict[str, socket.socket]]:
    """Plain receivers at the other ends: a on the wire of eth0, b on that of eth1."""
    with contextlib.ExitStack() as opened:
        yield {
            name: opened.enter_context(member_on(talker, GROUP[version], PORT))
            for name, talker in wires.talkers.items()
        }


@contextlib.contextmanager
def member_of_bridge(host: Host, version: int, name: str = "br0") -> Iterator[socket.socket]:
    """A plain receiver on the bridge itself: it hears what this host sends out of it, and not what leaves by a port."""
    with udp_socket(host, version, ("0.0.0.0" if version == 4 else "::", PORT)) as member:
        with host.entered():
            join(member, GROUP[version], socket.if_nametoindex(name))
        member.setsockopt(socket.SOL_SOCKET, socket.SO_BINDTODEVICE, name.encode() + b"\0")
        yield member


def heard(judge: socket.socket, payload: bytes) -> tuple[str, int]:
    """The source address and port of the next datagram, which has this payload."""
    data, sender = judge.recvfrom(100)
    assert data == payload
    return sender[:2]


@both_versions
@pytest.mark.parametrize("by", ["name", "address"])
def test_it_follows_into_a_bridge_and_back(wires: TwoWires, version: int, by: str) -> None:
    """What is sent once eth0 is a port of br0 leaves by br0, from its address and the same port; and back by eth0."""
    with judges(wires, version) as judge, Speaker(version, "eth0" if by == "name" else ADDRESS[version]) as speaker:
        for _ in range(3):
            speaker.say(b"before")
            before = heard(judge["a"], b"before")
        wires.listener.put_into_bridge("eth0")
        speaker.wait_for_event("sending", "br0")
        wait_until(lambda: speaker._outlets[0].socket.socket.getsockname()[1] == before[1], "it has its port again")
        with member_of_bridge(wires.listener, version) as beside:
            for _ in range(3):
                speaker.say(b"on the bridge")
                assert heard(judge["a"], b"on the bridge") == heard(beside, b"on the bridge") == before
            assert speaker.network_interface.machine_name == "br0"
            speaker.events.clear()
            leave_bridge(wires.listener)
            speaker.wait_for_event("sending", "eth0")
        for _ in range(3):
            speaker.say(b"after")
            assert heard(judge["a"], b"after") == before
        assert nothing_for(judge["b"])


@both_versions
def test_it_follows_into_a_bond(wires: TwoWires, version: int, port_kind: str) -> None:
    """A port of a bond or a team counts like that of a bridge; one of a VRF goes on to send by itself."""
    wires.listener.ip("link add bond0 type bridge", "link set bond0 up")
    wires.listener.ip("addr add 10.5.0.1/24 dev bond0", "addr add fd05::1/64 dev bond0 nodad")
    with judges(wires, version) as judge, Speaker(version, "eth0") as speaker, Speaker(version, "eth1") as told_last:
        wires.listener.ip("link set eth0 master bond0")
        if port_kind == "vrf":
            wires.listener.remove_interface("eth1")
            told_last.wait_for_event("silent", "eth1")
            speaker.say(b"by eth0")
            assert heard(judge["a"], b"by eth0")[0] == ADDRESS[version]
            assert speaker.events == []
            return
        speaker.wait_for_event("sending", "bond0")
        speaker.say(b"by the bond")
        assert heard(judge["a"], b"by the bond")[0] == {4: "10.5.0.1", 6: "fd05::1"}[version]


@both_versions
def test_the_events_of_a_bridge(wires: TwoWires, version: int) -> None:
    """Each move is told once, with its reason."""
    wires.listener.ip("link add br0 type bridge", "link set br0 up")
    wires.listener.ip("addr add 10.5.0.1/24 dev br0", "addr add fd05::1/64 dev br0 nodad")
    with Speaker(version, "eth0") as speaker:
        wires.listener.ip("link set eth0 master br0")
        speaker.wait_for_event("sending", "br0")
        wires.listener.ip("link set eth0 nomaster")
        speaker.wait_for_event("sending", "eth0")
        assert speaker.events == [
            HealingEvent("sending", "br0", 1, "eth0 is a port of it"),
            HealingEvent("sending", "eth0", 1, "it is no port of br0 any more"),
        ]
        assert str(speaker.events[0]) == "sending from br0: eth0 is a port of it"


@both_versions
def test_opened_on_a_port(wires: TwoWires, version: int) -> None:
    """A sender that is opened on a port of a bridge sends from the bridge at once, unless it has heal=False."""
    wires.listener.put_into_bridge("eth0")
    with judges(wires, version) as judge, member_of_bridge(wires.listener, version) as beside:
        with Speaker(version, "eth1") as elsewhere, pytest.raises(MulticastExpertError, match="scope"):
            elsewhere.sendto(b"wrong", (f"{GROUP[version]}%br0", PORT))
        wires.listener.ip("addr add 10.6.0.1/24 dev eth0", "addr add fd06::1/64 dev eth0 nodad")
        with Speaker(version, "eth0") as speaker:
            for scope in ("", "%eth0", "%br0"):
                speaker.sendto(b"on the bridge", (GROUP[version] + scope, PORT))
                assert heard(beside, b"on the bridge")[0] == ADDRESS[version]
                heard(judge["a"], b"on the bridge")
            speaker.wait_for_event("sending", "br0")
            with Speaker(version, "eth0") as second:
                second.wait_for_event("sending", "br0")
            if version == 6:
                index = wires.listener.interface("eth0").index()
                for _ in range(3):
                    speaker.sendto(b"by number", (GROUP[6], PORT, 0, index))
                    heard(beside, b"by number")
        with Speaker(version, "eth0", heal=False) as stays:
            stays.say(b"by the port")
            assert nothing_for(beside)


@both_versions
def test_it_follows_its_address(wires: TwoWires, version: int) -> None:
    """A sender by address sends where the address is, from it; nothing leaves by the old interface any more."""
    with judges(wires, version) as judge, Speaker(version, ADDRESS[version]) as speaker:
        for _ in range(3):
            speaker.say(b"before")
            before = heard(judge["a"], b"before")
        move_both(wires.listener)
        speaker.wait_for_event("sending", "eth1")
        wait_until(lambda: speaker.getsockname()[1] == before[1], "it has its port again")
        for _ in range(3):
            speaker.say(b"after")
            assert heard(judge["b"], b"after") == before
        assert nothing_for(judge["a"])
        assert speaker.events == [HealingEvent("sending", "eth1", 1, f"it has the address {ADDRESS[version]} now")]


@both_versions
def test_its_address_comes_back(wires: TwoWires, version: int) -> None:
    """A sender by address that had to take another one takes its own again, when that is back."""
    with judges(wires, version) as judge, Speaker(version, ADDRESS[version]) as speaker:
        wires.listener.remove_interface("eth0")
        eth0 = wires.listener.interface("eth0")
        given, eth0.addresses = eth0.addresses, [f"{NEW_ADDRESS[each]}/{PREFIX[each]}" for each in (4, 6)]
        wires.listener.recreate_interface("eth0")
        speaker.say(b"from another")
        data, (source, *_) = judge["a"].recvfrom(100)
        assert data == b"from another"
        assert source != ADDRESS[version]
        speaker.wait_for_event("sending", "eth0")
        speaker.events.clear()
        for address in given:
            wires.listener.ip(f"addr add {address} dev eth0" + (" nodad" if ":" in address else ""))
        speaker.wait_for_event("sending", "eth0")
        speaker.say(b"from its own")
        assert heard(judge["a"], b"from its own")[0] == ADDRESS[version]
        assert [event.reason for event in speaker.events] == ["its address has changed"]


@both_versions
def test_nothing_leaves_by_another_of_its_index(wires: TwoWires, version: int) -> None:
    """While its interface is gone, nothing is sent from one that has got the index; then it goes on, from its port."""
    host = wires.listener
    index = host.interface("eth0").index()
    with judges(wires, version) as judge, Speaker(version, "eth0") as speaker:
        for _ in range(3):
            speaker.say(b"before")
            before = heard(judge["a"], b"before")
        host.remove_interface("eth0")
        speaker.wait_for_event("silent", "eth0")
        host.ip(
            f"link add other index {index} type veth peer name end",
            "addr add 10.5.0.1/24 dev other",
            "addr add fd05::1/64 dev other nodad",
            "link set other up",
            "link set end up",
        )
        with member_of_bridge(host, version, "other") as beside:
            for _ in range(3):
                with pytest.raises(MulticastOSError, match=r"Cannot send to .* out of eth0") as caught:
                    speaker.say(b"lost")
                assert caught.value.errno == errno.ENODEV
            with pytest.raises(MulticastOSError):
                speaker.send_many([b"lost"], (GROUP[version], PORT))
            assert nothing_for(beside)
            assert (speaker.network_interfaces, speaker.getsockname()[1]) == ([], before[1])
        host.recreate_interface("eth0")
        speaker.say(b"after")
        assert heard(judge["a"], b"after") == before
        speaker.wait_for_event("sending", "eth0")
        assert [event.kind for event in speaker.events] == ["silent", "sending"]


@both_versions
def test_a_scope_means_the_interface_of_now(wires: TwoWires, version: int) -> None:
    """An interface that came back is meant by its new index at once, and by the old one no more; so with names."""
    host, group = wires.listener, GROUP[version]
    old = host.interface("eth0").index()
    with judges(wires, version) as judge, Speaker(version, None, ifaces=["eth0", "eth1"]) as speaker:
        for _ in range(2):
            speaker.sendto(b"before", (f"{group}%{old}", PORT))
            heard(judge["a"], b"before")
        host.remove_interface("eth0")
        new = host.recreate_interface("eth0").index()
        for scope in (str(new), "eth0"):
            speaker.sendto(b"back", (f"{group}%{scope}", PORT))
            heard(judge["a"], b"back")
        host.rename_interface("eth0", "uplink")
        speaker.sendto(b"renamed", (f"{group}%uplink", PORT))
        heard(judge["a"], b"renamed")
        with pytest.raises(MulticastExpertError, match=rf"scope {old} .*uplink \(index {new}\)"):
            speaker.sendto(b"wrong", (f"{group}%{old}", PORT))
        if version == 6:
            speaker.sendto(b"by number", (group, PORT, 0, new))
            heard(judge["a"], b"by number")
            with pytest.raises(MulticastExpertError, match="scope"):
                speaker.sendto(b"wrong", (group, PORT, 0, old))
        assert nothing_for(judge["b"])


# Opened before the interface is there


def plug_named(wires: TwoWires) -> None:
    """Give the listener its eth0."""
    wires.plug("eth0")


@both_versions
@pytest.mark.parametrize("by", ["name", "address"])
def test_a_missing_interface(version: int, by: str) -> None:
    """With allow_missing it opens without its interface, raises at each send, and sends as soon as it is there."""
    with two_wires(("eth1",)) as wires, wires.listener.entered(), judges(wires, version) as judge:
        specifier = "eth0" if by == "name" else ADDRESS[version]
        with pytest.raises(MulticastExpertError):
            Speaker(version, specifier)
        with pytest.raises(MulticastExpertError):
            Speaker(version, specifier, allow_missing=True, heal=False)
        with Speaker(version, specifier, allow_missing=True, ttl=1) as speaker:
            assert speaker.network_interfaces == []
            assert len(speaker.filenos()) == 1
            port = speaker.getsockname()[1]
            for send in (speaker.say, lambda payload: speaker.send_many([payload], (GROUP[version], PORT))):
                with pytest.raises(MulticastOSError, match=f"out of {specifier}: .*The interface is missing") as caught:
                    send(b"too early")
                assert (caught.value.errno, caught.value.step) == (errno.ENODEV, "send")
            plug_named(wires)
            for number in range(3):
                speaker.say(b"%d" % number)
                assert heard(judge["a"], b"%d" % number) == (ADDRESS[version], port)
            speaker.wait_for_event("sending", "eth0")
            assert [iface.machine_name for iface in speaker.network_interfaces] == ["eth0"]
        assert [event.kind for event in speaker.events] == ["sending"]


@both_versions
def test_an_interface_without_an_address(wires: TwoWires, version: int) -> None:
    """With allow_missing, one without an address of the family counts as missing until it has one."""
    wires.listener.remove_addresses("eth0")
    with pytest.raises(MulticastExpertError, match=f"has no IPv{version} address"):
        Speaker(version, "eth0")
    with judges(wires, version) as judge, Speaker(version, "eth0", allow_missing=True) as speaker:
        with pytest.raises(MulticastOSError, match=f"no IPv{version} address"):
            speaker.say(b"too early")
        wires.listener.replace_address("eth0", f"{ADDRESS[version]}/{PREFIX[version]}")
        speaker.say(b"in time")
        assert heard(judge["a"], b"in time")[0] == ADDRESS[version]


@both_versions
def test_one_of_two_is_missing(version: int) -> None:
    """The error of the missing one is raised after the other has sent; a scope chooses among both."""
    with two_wires(("eth1",)) as wires, wires.listener.entered(), judges(wires, version) as judge:
        with Speaker(version, None, ifaces=["eth0", "eth1"], allow_missing=True) as speaker:
            with pytest.raises(MulticastOSError, match="eth0"):
                speaker.say(b"half")
            heard(judge["b"], b"half")
            speaker.sendto(b"eth1", (f"{GROUP[version]}%eth1", PORT))
            heard(judge["b"], b"eth1")
            with pytest.raises(MulticastOSError, match="eth0"):
                speaker.sendto(b"eth0", (f"{GROUP[version]}%eth0", PORT))
            plug_named(wires)
            speaker.say(b"whole")
            assert len(until(judge.values(), 2)) == 2
            if version == 6:
                index = wires.listener.interface("eth0").index()
                speaker.sendto(b"by number", (GROUP[6], PORT, 0, index))
                heard(judge["a"], b"by number")


@both_versions
def test_a_missing_default_route(wires: TwoWires, version: int) -> None:
    """Without a name, allow_missing waits for the default route."""
    with pytest.raises(MulticastExpertError, match="no default"):
        Speaker(version, None)
    with judges(wires, version) as judge, Speaker(version, None, allow_missing=True) as speaker:
        with pytest.raises(MulticastOSError, match="default IPv"):
            speaker.say(b"too early")
        wires.listener.ip("route add default via 10.1.1.2", "route add default via fd01:1::2")
        speaker.wait_for_event("sending", "eth1")
        speaker.say(b"in time")
        heard(judge["b"], b"in time")


def test_bad_values_are_refused_all_the_same(wires: TwoWires) -> None:
    """A missing interface excuses no wrong hop limit and no wrong DSCP."""
    for wrong in ({"ttl": 256}, {"dscp": 64}):
        with pytest.raises(MulticastExpertError, match="out of range"):
            Speaker(4, "usb0", allow_missing=True, **wrong)


@pytest.mark.slow
@both_versions
@pytest.mark.parametrize("loop", ["asyncio", "trio"])
@pytest.mark.parametrize("change", [lambda host: host.put_into_bridge("eth0"), move_both], ids=["bridge", "address"])
def test_on_an_event_loop(wires: TwoWires, version: int, loop: str, change: Callable[[Host], None]) -> None:
    """The awaited sender follows in the same way, and may be opened before its interface is there."""
    events: list[HealingEvent] = []
    destination = GROUP[version], PORT

    async def scenario() -> None:
        async with AsyncMcastTxSocket(
            FAMILY[version], [GROUP[version]], ADDRESS[version], on_event=events.append, allow_missing=True
        ) as sender:
            await sender.sendto(b"before", destination)
            change(wires.listener)
            while not events or sender.getsockname()[0] != ADDRESS[version]:
                await anyio.sleep(0.01)
            await sender.sendto(b"after", destination)
            assert await sender.send_many([b"many"], destination) == 1
        async with AsyncMcastTxSocket(FAMILY[version], [GROUP[version]], "usb0", allow_missing=True) as early:
            with pytest.raises(MulticastOSError, match="usb0"):
                await early.sendto(b"too early", destination)

    with judges(wires, version) as judge:
        anyio.run(scenario, backend=loop)
        heard(judge["a"], b"before")
        after = judge["b"] if change is move_both else judge["a"]
        for payload in (b"after", b"many"):
            assert heard(after, payload)[0] == ADDRESS[version]
        # A bridge gets the interface first and the address then: either may be told.
        assert {event.interface for event in events} == {"eth1" if change is move_both else "br0"}
