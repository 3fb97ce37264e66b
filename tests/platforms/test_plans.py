"""Which sockets are opened for what, on each OS, as text in plans/*.txt; and what holds for any request."""

import re
import sys
from collections.abc import Iterator
from ipaddress import IPv4Interface, IPv6Interface, ip_address
from itertools import product
from pathlib import Path
from struct import calcsize

import pytest
from hypothesis import given
from hypothesis import strategies as st

from multicast_expert import IfaceInfo, MulticastExpertError
from multicast_expert.core.both_ways import SendSettings, Unicast, plan_both_ways
from multicast_expert.core.interfaces import InterfaceChoice
from multicast_expert.core.plan import Join, ReceiveSettings, SocketPlan, plan_receive, plan_send
from multicast_expert.platforms import PLATFORMS, Option

PLANS = Path(__file__).parent / "plans"
LO = IfaceInfo("lo", 1, None, (IPv4Interface("127.0.0.1/8"),), (IPv6Interface("::1/128"),))
ETH0 = IfaceInfo("eth0", 2, None, (IPv4Interface("10.0.0.1/24"),), (IPv6Interface("fe80::1%eth0/64"),))
ETH1 = IfaceInfo("eth1", 3, None, (IPv4Interface("10.1.0.1/24"),), (IPv6Interface("fd01::1/64"),))
GROUPS = {4: ("239.1.2.3", "239.1.2.4"), 6: ("ff15::1234", "ff02::1235")}
SOURCES = {4: ("10.0.0.7", "10.0.0.8"), 6: ("fd00::7", "fd00::8")}


def numbered(count: int) -> list[IfaceInfo]:
    """Return so many interfaces, each with an address of both families."""
    return [
        IfaceInfo(f"e{n}", n, None, (IPv4Interface(f"10.{n}.0.1/24"),), (IPv6Interface(f"fd00:{n}::1/64"),))
        for n in range(1, count + 1)
    ]


def joins(version: int, groups: int, ifaces: list[IfaceInfo], sources: int = 0) -> list[Join]:
    """Return the memberships of so many groups on the interfaces, from so many sources (0: any)."""
    wanted = [ip_address(source) for source in SOURCES[version][:sources]] or [None]
    return [
        Join(ip_address(group), source, InterfaceChoice(iface))
        for group, source, iface in product(GROUPS[version][:groups], wanted, ifaces)
    ]


def hexadecimal(value: bytes) -> str:
    """Return the bytes in hex, "z" and a number standing for a long row of zero bytes."""
    return re.sub(r"(?:00){9,}", lambda zeros: f" z{len(zeros[0]) // 2} ", value.hex()).strip()


def option_text(option: Option) -> str:
    """Return one call as text: name, level and number, bytes, meaning, and what may fail or isolates."""
    level = "ioctl" if option.level is None else option.level
    extras = [option.meaning and f"= {option.meaning}", option.may_fail and f"may fail: {', '.join(option.may_fail)}"]
    extras.append("isolates" if option.isolates else "")
    notes = "; ".join(extra for extra in extras if extra)
    return f"{option.name} ({level}, {option.number}) {hexadecimal(option.value)}" + (f"  {notes}" if notes else "")


def plan_lines(plan: SocketPlan) -> Iterator[str]:
    """Yield a socket's plan, a line for each call."""
    yield f"socket family {plan.family}" + (", filtered" if plan.filtered else "") + (", marked" if plan.marked else "")
    for option in plan.options:
        yield f"  set {option_text(option)}"
    yield f"  bind {plan.address}" + (f" for {', '.join(plan.hosts)}" if plan.hosts else "")
    for option in plan.sharing:
        yield f"  set {option_text(option)}"
    for change in plan.joins:
        yield f"  {change.operation} {change.join}"
        for option in change.ways:
            yield f"    {option_text(option)}"


def plan_text(system: str, version: int) -> str:
    """Return the plans for one OS and IP version: what receivers and transmitters of different wishes open."""
    platform = PLATFORMS[system]
    settings = ReceiveSettings(version, 5000)
    eth0 = InterfaceChoice(ETH0)
    scenes = {
        "one group on one interface": plan_receive(platform, settings, joins(version, 1, [ETH0])),
        "two groups on two interfaces": plan_receive(platform, settings, joins(version, 2, [ETH0, ETH1])),
        "one group from two sources": plan_receive(platform, settings, joins(version, 1, [ETH0], sources=2)),
        "one group on loopback": plan_receive(platform, settings, joins(version, 1, [LO])),
        "one group, and what this host sends itself": plan_receive(
            platform, settings._replace(loopback=True), joins(version, 1, [ETH0])
        ),
        "send, one hop": [plan_send(platform, version, eth0, 1)],
        "send, ten hops, heard on this host too": [plan_send(platform, version, eth0, 10, loopback=True)],
        "send from loopback": [plan_send(platform, version, InterfaceChoice(LO), 1)],
    }
    blocks = [
        "\n".join([f"## {title}", *(line for plan in plans for line in plan_lines(plan))])
        for title, plans in scenes.items()
    ]
    return "\n\n".join(blocks) + "\n"


def both_ways_text(system: str, version: int) -> str:
    """Return the plans of sockets that receive and send on one port, for one OS and IP version."""
    platform = PLATFORMS[system]
    settings = ReceiveSettings(version, 5000, shares=True)
    scenes = {
        "one group on two interfaces, and their unicast": ([ETH0, ETH1], 1, Unicast("chosen"), SendSettings()),
        "no unicast": ([ETH1], 1, Unicast("named"), SendSettings()),
        "no group, any unicast, ten hops, and what it sends itself": (
            [ETH1],
            0,
            Unicast("any"),
            SendSettings(10, own=True),
        ),
    }
    blocks = []
    for title, (ifaces, groups, unicast, sending) in scenes.items():
        choices = [InterfaceChoice(iface) for iface in ifaces]
        wanted = joins(version, groups, ifaces)
        plans = plan_both_ways(platform, settings, sending, choices, wanted, unicast)
        blocks.append("\n".join([f"## {title}", *(line for plan in plans for line in plan_lines(plan))]))
    return "\n\n".join(blocks) + "\n"


@pytest.mark.skipif(
    sys.byteorder != "little" or calcsize("P") != 8, reason="the texts are those of 64-bit little-endian machines"
)
@pytest.mark.parametrize("version", [4, 6])
@pytest.mark.parametrize("system", PLATFORMS)
def test_plan_of_both_ways(system: str, version: int, tmp_path: Path) -> None:
    """The same for sockets that receive and send on one port."""
    name = f"{system}-ipv{version}-both-ways.txt"
    actual = tmp_path / name
    actual.write_text(both_ways_text(system, version))
    assert actual.read_text() == (PLANS / name).read_text(), f"if the change is meant, {actual} is the new text"


@pytest.mark.skipif(
    sys.byteorder != "little" or calcsize("P") != 8, reason="the texts are those of 64-bit little-endian machines"
)
@pytest.mark.parametrize("version", [4, 6])
@pytest.mark.parametrize("system", PLATFORMS)
def test_plan_text(system: str, version: int, tmp_path: Path) -> None:
    """Every socket, option with its bytes, bind address and membership is the reviewed one."""
    name = f"{system}-ipv{version}.txt"
    actual = tmp_path / name
    actual.write_text(plan_text(system, version))
    assert actual.read_text() == (PLANS / name).read_text(), f"if the change is meant, {actual} is the new text"


def test_groups_on_many_interfaces_take_several_sockets() -> None:
    """A Linux socket holds 20 IPv4 memberships: 45 interfaces of one group are 20 + 20 + 5."""
    plans = plan_receive(PLATFORMS["linux"], ReceiveSettings(4, 5000), joins(4, 1, numbered(45)))
    assert [len(plan.joins) for plan in plans] == [20, 20, 5]
    assert {plan.address for plan in plans} == {("239.1.2.3", 5000)}
    assert len({plan.key for plan in plans}) == 3


def test_twenty_one_groups_are_no_problem() -> None:
    """A socket for every group: none comes near the kernel's limit of 20 groups on one socket."""
    wanted = [Join(ip_address(f"239.1.2.{number}"), None, InterfaceChoice(ETH0)) for number in range(21)]
    plans = plan_receive(PLATFORMS["linux"], ReceiveSettings(4, 5000), wanted)
    assert [len(plan.joins) for plan in plans] == [1] * 21


def test_sources_of_a_group_and_interface_stay_together() -> None:
    """They are one membership with a list of sources, and take one place of the 20."""
    plans = plan_receive(PLATFORMS["linux"], ReceiveSettings(4, 5000), joins(4, 1, numbered(21), sources=2))
    assert [len(plan.joins) for plan in plans] == [40, 2]
    homes = [{change.join.interface.iface.index for change in plan.joins} for plan in plans]
    assert homes[0].isdisjoint(homes[1])


INTERFACES = numbered(50)
REQUESTS = (
    st.integers(4, 6)
    .filter(lambda version: version != 5)
    .flatmap(
        lambda version: st.tuples(
            st.just(version),
            st.lists(
                st.sampled_from(["239.1.2.3", "239.1.2.4", "232.1.1.1"] if version == 4 else ["ff15::1", "ff02::2"])
            ),
            st.lists(st.sampled_from(INTERFACES), max_size=50),
            st.lists(st.sampled_from(["10.0.0.7", "10.0.0.8", "10.0.0.9"] if version == 4 else ["fd00::7", "fd00::8"])),
        )
    )
)


@given(st.sampled_from(sorted(PLATFORMS)), REQUESTS)
def test_every_membership_is_in_one_socket(
    system: str, request: tuple[int, list[str], list[IfaceInfo], list[str]]
) -> None:
    """Nothing asked for is lost or doubled, no socket is over its capacity, each keeps to its group or interface."""
    version, groups, ifaces, sources = request
    wanted = [
        Join(ip_address(group), None if source is None else ip_address(source), InterfaceChoice(iface))
        for group, source, iface in product(
            dict.fromkeys(groups), dict.fromkeys(sources) or [None], {iface.index: iface for iface in ifaces}.values()
        )
    ]
    layout = PLATFORMS[system].receive[version]
    plans = plan_receive(PLATFORMS[system], ReceiveSettings(version, 5000), wanted)

    planned = [change.join for plan in plans for change in plan.joins]
    assert sorted(planned, key=str) == sorted(wanted, key=str)
    assert len({plan.key for plan in plans}) == len(plans)
    for plan in plans:
        indexes = {change.join.interface.iface.index for change in plan.joins}
        assert layout.capacity is None or len(indexes) <= layout.capacity
        assert not layout.per_interface or len(indexes) == 1
        assert not layout.per_group or {str(change.join.group) for change in plan.joins} == {plan.address[0]}
    homes = [
        (plan.key, change.join.group, change.join.interface.iface.index) for plan in plans for change in plan.joins
    ]
    assert len(set(homes)) == len({(group, index) for _, group, index in homes})


def test_an_address_that_was_named_is_the_source() -> None:
    """Of several addresses of an interface, datagrams leave with the one that the user named it by."""
    iface = IfaceInfo("eth0", 2, None, (IPv4Interface("10.0.0.1/24"), IPv4Interface("10.0.0.9/24")), ())
    plan = plan_send(PLATFORMS["linux"], 4, InterfaceChoice(iface, ip_address("10.0.0.9")), 1)
    assert plan.address == ("10.0.0.9", 0)
    assert plan.options[0].value[4:8] == ip_address("10.0.0.9").packed


def test_a_named_link_local_address_keeps_its_scope() -> None:
    """fe80::1 is bound with the index of its interface, which it says nothing without."""
    address = ip_address("fe80::1%eth0")
    for system in PLATFORMS:
        plan = plan_send(PLATFORMS[system], 6, InterfaceChoice(ETH0, address), 1)
        assert plan.address == ("fe80::1", 0, 0, 2)


@pytest.mark.parametrize("hops", [-1, 256, 1000])
@pytest.mark.parametrize("system", PLATFORMS)
def test_hop_limit_out_of_range(system: str, hops: int) -> None:
    """Hop limits are 0 to 255; anything else is refused before a socket exists."""
    with pytest.raises(MulticastExpertError, match=r"ttl .* out of range: 0 to 255"):
        plan_send(PLATFORMS[system], 4, InterfaceChoice(ETH0), hops)


@pytest.mark.parametrize(("version", "word"), [(4, "0.0.0.0"), (6, "could not leave")])
def test_sending_needs_an_address(version: int, word: str) -> None:
    """An interface without an address of the family is refused, and the text says what would happen."""
    bare = IfaceInfo("eth0", 2, None, (), ())
    with pytest.raises(MulticastExpertError, match=f"eth0 has no IPv{version} address.*{word}"):
        plan_send(PLATFORMS["linux"], version, InterfaceChoice(bare), 1)
