"""The facts that are collected on a host of the lab: what is there, what happened, and that nothing is left behind."""

import os
import shlex
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing
from pathlib import Path
from typing import Any

import pytest

from doctor.command import doctor, run
from doctor.stage import ENDPOINT, GROUP, GROUP6, PORT, SSM, TALKER, TALKER6, Stage, stage
from linux.plain_sockets import PATIENCE, any_address, join, udp_socket
from multicast_expert import MulticastExpertError
from multicast_expert.doctor import Facts, Unread, collect, facts_from_text, facts_to_text, judge
from multicast_expert.doctor.facts import Arrivals, InterfaceFacts, JoinTrial, Route, Target, Trial, interface_setting
from multicast_expert.doctor.host.any_os import Host as PlainHost
from multicast_expert.doctor.host.any_os import again_as_root
from multicast_expert.doctor.host.linux import LinuxHost
from multicast_expert.doctor.trial.receiver import Listening
from multicast_expert.system import kernel
from multicast_expert.system.listings import UdpSocket
from multicast_expert.testing import Host, lab_unavailable, wait_until
from multicast_expert.wire.frames import udp_packet
from multicast_expert.wire.tallies import Frames, Queries

pytestmark = pytest.mark.skipif(lab_unavailable() is not None, reason=f"no multicast lab: {lab_unavailable()}")

LISTEN = 0.4
"""Seconds: traffic that comes every 20 ms is heard in both halves."""


@pytest.fixture
def made() -> Iterator[Stage]:
    """A listener and a talker, not connected yet."""
    with stage() as empty:
        yield empty


@pytest.fixture
def cabled(made: Stage) -> Stage:
    """A listener that is joined by a cable to a talker."""
    made.cable()
    return made


def facts_of(host: Host, *arguments: Any, listen: float = LISTEN, **named: Any) -> Facts:
    """What is collected on the host; every collection survives being saved."""
    facts = host.run(collect, *arguments, listen=listen, **named)
    assert facts_from_text(facts_to_text(facts)) == facts
    return facts


def until(number: int) -> Callable[[float, int], bool]:
    """End the listening when so many datagrams have come, however long that takes."""
    return lambda _, received: received < number


def trial_of(facts: Facts) -> Trial:
    """What happened, when it was tried."""
    assert isinstance(facts.trial, Trial), facts.trial
    return facts.trial


def known(value: Any) -> Any:
    """The value, which must have been read."""
    assert not isinstance(value, Unread), value
    return value


def descriptors() -> int:
    """How many this process has open."""
    return sum(1 for _ in Path("/proc/self/fd").iterdir())


def interface_of(facts: Facts, name: str) -> InterfaceFacts:
    """What is known of the interface of this name."""
    return next(each for each in known(facts.interfaces) if each.name == name)


# The host


def test_interfaces(cabled: Stage) -> None:
    """Each with its state and addresses; those that a receiver would listen on are marked."""
    cabled.listener.ip("link add br0 type bridge", "addr add 10.5.0.1/24 dev br0")
    cabled.listener.add_interface("port")
    cabled.listener.ip("link set port master br0")
    found = {each.name: each for each in known(facts_of(cabled.listener, GROUP, PORT, listen=0).interfaces)}
    eth0, bridge = found["eth0"], found["br0"]
    assert eth0.kind == "veth"
    assert (eth0.is_up, eth0.has_carrier, eth0.chosen, eth0.mtu) == (True, True, True, 1500)
    assert {"10.1.0.1/24", "fd01::1/64"} <= set(eth0.addresses)
    assert (bridge.is_up, bridge.kind, found["port"].bridge) == (False, "bridge", "br0")
    assert (found["lo"].is_loopback, found["lo"].chosen, found["port"].chosen) == (True, False, False)


def test_a_pulled_cable_and_a_doubtful_address(made: Stage) -> None:
    """An interface without a carrier is still up, and an address that is being checked is tentative."""
    made.cable()
    made.listener.ip("addr add fd01::77/64 dev eth0")
    made.listener.set_sysctl("net/ipv6/conf/eth0/accept_dad", 1)
    made.listener.ip("addr add fd01::78/64 dev eth0")
    eth0 = interface_of(facts_of(made.listener, GROUP6, PORT, listen=0), "eth0")
    assert "fd01::78/64" in eth0.tentative
    assert "fd01::1/64" not in eth0.tentative
    made.listener.set_cable("eth0", False)
    eth0 = interface_of(facts_of(made.listener, GROUP, PORT, listen=0), "eth0")
    assert (eth0.is_up, eth0.has_carrier) == (True, False)


def test_routes(made: Stage) -> None:
    """To the group, to the source that is wanted, and to the sender that was seen."""
    made.router()
    facts = facts_of(made.listener, GROUP, PORT, "10.2.0.2", listen=0)
    assert facts.routes == (
        Route(GROUP, "eth0", "10.1.0.1"),
        Route("10.2.0.2", "eth0", "10.1.0.1", "10.1.0.254"),
    )


def test_the_route_to_a_sender_that_was_seen(cabled: Stage) -> None:
    """The way back to whoever sends is looked up; None where there is none."""
    source = cabled.talker.add_unroutable_address("eth0")
    cabled.talker.send_datagrams(GROUP, PORT, interface="eth0", source=source)
    assert Route(source, None) in known(facts_of(cabled.listener, GROUP, PORT).routes)


def test_settings(cabled: Stage) -> None:
    """By their names in sysctl, of all interfaces; a name with a dot keeps it as a slash."""
    cabled.listener.set_reverse_path_filter("eth0", 2)
    cabled.listener.add_interface("wan.7")
    cabled.listener.force_mld_version("wan.7", 1)
    settings = facts_of(cabled.listener, GROUP, PORT, listen=0).settings
    assert settings["net.ipv4.conf.eth0.rp_filter"] == "2"
    assert settings[interface_setting(6, "wan.7", "force_mld_version")] == "1"
    assert settings["net.ipv4.igmp_max_memberships"] == "20"
    assert settings["net.ipv4.conf.all.accept_local"] == "0"
    assert {"net.core.rmem_max", "net.ipv4.igmp_max_msf", "net.ipv6.conf.eth0.disable_ipv6"} <= set(settings)


def test_sockets_and_memberships(cabled: Stage) -> None:
    """Other programs' sockets on the port are listed with who holds them, and what the host had joined before."""
    with udp_socket(cabled.listener, 4, (any_address(4), PORT)) as other, udp_socket(cabled.listener, 4, (GROUP, 7)):
        join(other, "239.9.9.9", cabled.listener.interface("eth0").index())
        facts = facts_of(cabled.listener, GROUP, PORT)
    sockets: tuple[UdpSocket, ...] = known(facts.sockets)
    assert {(str(each.address), each.port) for each in sockets} == {("0.0.0.0", PORT), (GROUP, 7)}
    assert all(process.pid == os.getpid() for each in sockets for process in each.processes)
    assert {str(each.group) for each in known(facts.memberships) if not each.kept_by_system} == {"239.9.9.9"}
    assert {each.inode for each in trial_of(facts).sockets} == {each.inode for each in sockets}


def test_bridges(made: Stage) -> None:
    """A bridge of the host tells its ports, what it knows to be joined, and where it floods."""
    switch = made.switch(querier=True)
    index = made.listener.interface("eth0").index()
    switch.set_flood_unknown(made.talker.interface("eth0"), False)
    with udp_socket(made.listener, 4) as member, udp_socket(made.listener, 6) as member6:
        join(member, GROUP, index)
        join(member6, GROUP6, index)
        switch.wait_for_member(GROUP, made.listener.interface("eth0"))
        switch.wait_for_member(GROUP6, made.listener.interface("eth0"))
        facts = switch.run(collect, GROUP, PORT, listen=0)
    (bridge,) = known(facts.bridges)
    ports = [made.listener.interface("eth0").peer.name, made.talker.interface("eth0").peer.name]
    assert sorted(bridge.ports) == sorted(ports)
    assert (bridge.snooping, bridge.querier, bridge.other_querier) == (True, True, None)
    assert {(GROUP, ports[0]), (GROUP6, ports[0])} <= set(bridge.members)
    assert bridge.ports_without_flooding == (ports[1],)


@pytest.mark.parametrize("routed", [False, True])
def test_the_loopback_route_of_ipv6(made: Stage, routed: bool) -> None:
    """It is a question of IPv6 on the loopback interface only, and the routing table answers it."""
    if routed:
        made.listener.allow_ipv6_loopback()
    facts = facts_of(made.listener, GROUP6, PORT, None, "lo", listen=0)
    assert facts.loopback_route is routed
    assert [probe.came_back for probe in trial_of(facts).probes] == [routed]
    assert facts_of(made.listener, GROUP, PORT, None, "lo", listen=0).loopback_route is None


def test_a_group_that_is_none(cabled: Stage) -> None:
    """Nothing is joined then, and everything else is told."""
    for text, version in ((TALKER, 4), (TALKER6, 6), ("nonsense", None)):
        facts = facts_of(cabled.listener, text, PORT)
        assert isinstance(facts.trial, Unread)
        assert text in facts.trial.reason
        assert facts.target.group_version == version
        assert known(facts.interfaces)


@pytest.mark.parametrize("wrong", [{"source": GROUP}, {"port": 70000}])
def test_what_cannot_be_asked_is_refused(cabled: Stage, wrong: dict[str, Any]) -> None:
    """A source and a port that cannot be are errors at once."""
    with pytest.raises(MulticastExpertError):
        cabled.listener.run(collect, GROUP, **wrong)


@pytest.mark.parametrize("iface", ["eth7", "", "10.9.9.9", "fd00::9%eth0"])
def test_an_interface_that_is_gone(cabled: Stage, iface: str) -> None:
    """A name or address that no interface has is a finding, not an error: what is on the others is still looked at."""
    facts = facts_of(cabled.listener, GROUP, PORT, iface=iface)
    assert facts.target.interface == iface
    assert not [each for each in known(facts.interfaces) if each.chosen]
    report = judge(facts)
    assert report.cause is not None
    assert report.cause.check == "interface-down"
    assert [each.check for each in report.findings if each.verdict in ("problem", "suspect")] == ["interface-down"]
    assert {each.check: each.remedy for each in report.findings if each.verdict == "unknown"} == dict.fromkeys(
        ("interface-address", "wrong-interface", "ttl", "no-traffic"), ()
    )


# The trial


@pytest.mark.parametrize(("group", "sender"), [(GROUP, TALKER), (GROUP6, TALKER6)])
def test_what_was_asked_for_arrives(cabled: Stage, group: str, sender: str) -> None:
    """Datagrams of a kind are counted together, by hop limit too; frames and counters show the same ones."""
    traffic = cabled.talker.send_datagrams(group, PORT, interface="eth0", hop_limit=7)
    facts = facts_of(cabled.listener, group, PORT)
    traffic.stop()
    trial = trial_of(facts)
    (arrived,) = trial.arrivals
    assert isinstance(arrived, Arrivals)
    assert (arrived.interface, arrived.group, arrived.sender, arrived.hop_limit) == ("eth0", group, sender, 7)
    assert arrived.asked
    assert 0 <= arrived.first < arrived.last <= trial.seconds
    assert 3 < arrived.count <= traffic.sent
    assert (trial.widened, trial.socket_drops) == (False, 0)
    assert trial.joins == (JoinTrial("eth0", None),)
    (frame,) = known(trial.frames)
    assert isinstance(frame, Frames)
    assert (frame.interface, frame.group, frame.sender, frame.port, frame.hop_limit) == ("eth0", group, sender, PORT, 7)
    assert (frame.bad_checksums, frame.fragments, frame.outgoing) == (0, 0, False)
    assert abs(frame.count - arrived.count) <= 1
    assert frame.longest == 100 + (28 if group == GROUP else 48)
    family = "Ip6" if group == GROUP6 else "Ip"
    assert abs(trial.counters[f"{family}.InReceives"] - arrived.count) <= 4  # and a few reports and the like


def test_an_other_source_arrives_when_the_trial_widens(cabled: Stage) -> None:
    """What comes from another source than asked is told as not asked for."""
    cabled.talker.send_datagrams(SSM, PORT, interface="eth0")
    trial = trial_of(facts_of(cabled.listener, SSM, PORT, "10.1.0.99"))
    assert trial.widened
    assert [(each.sender, each.asked) for each in trial.arrivals] == [(TALKER, False)]
    assert trial.joins == (JoinTrial("eth0", "10.1.0.99"),)


def test_an_other_interface_is_heard_when_the_trial_widens(made: Stage) -> None:
    """What comes in on an interface that was not asked for is told as such."""
    made.second_interface()
    made.cable()
    made.talker.send_datagrams(GROUP6, PORT, interface="eth0")
    facts = facts_of(made.listener, GROUP6, PORT, None, "eth1")
    assert facts.target.interface == "eth1"
    assert [(each.interface, each.asked) for each in trial_of(facts).arrivals] == [("eth0", False)]


def test_silence(cabled: Stage) -> None:
    """Where nothing comes, everything is told as zero, and our own probe is none of it."""
    trial = trial_of(facts_of(cabled.listener, GROUP, PORT))
    assert (trial.arrivals, trial.frames, trial.queries) == ((), (), ())
    assert trial.counters["IpExt.InMcastPkts"] <= 2  # our own reports on the loopback interface
    assert [(probe.interface, probe.came_back, probe.error) for probe in trial.probes] == [("eth0", True, None)]
    assert trial.seconds >= LISTEN


def test_the_probe_disturbs_nobody(cabled: Stage) -> None:
    """A program that listens to the group on this host, or on the same cable, gets nothing of it."""
    with ExitStack() as opened:
        members = []
        for host in (cabled.listener, cabled.talker):
            member = opened.enter_context(udp_socket(host, 4, (any_address(4), PORT)))
            join(member, GROUP, host.interface("eth0").index())
            member.setblocking(False)
            members.append(member)
        (probe,) = trial_of(facts_of(cabled.listener, GROUP, PORT)).probes
        assert probe.came_back
        for member in members:
            with pytest.raises(BlockingIOError):
                member.recv(1)


def test_a_refused_join_is_noted(made: Stage) -> None:
    """The trial goes on where one interface refuses."""
    made.cable()
    made.second_interface()
    made.listener.limit_memberships(1)
    trial = trial_of(facts_of(made.listener, GROUP, PORT))
    assert [each.error for each in trial.joins] == [None, "ENOBUFS"]
    assert "igmp_max_memberships" in trial.joins[1].text


def test_a_port_that_is_taken(cabled: Stage) -> None:
    """A program that shares its port with nobody makes every join fail, and is found."""
    cabled.listener.hold_port(PORT)
    facts = facts_of(cabled.listener, GROUP, PORT)
    assert [each.error for each in trial_of(facts).joins] == ["EADDRINUSE"]
    assert [each.port for each in known(facts.sockets)] == [PORT]


def test_a_port_that_was_not_named_is_found(cabled: Stage) -> None:
    """The frames tell the port, the busiest of several, and a receiver of it is tried."""
    cabled.talker.send_datagrams(GROUP, 5124, interface="eth0", interval=0.1)
    cabled.talker.send_datagrams(GROUP, 5123, interface="eth0")
    cabled.talker.send_datagrams("239.1.2.9", 5125, interface="eth0", interval=0.005)
    facts = facts_of(cabled.listener, GROUP)
    assert (facts.target.port, facts.target.port_found) == (5123, True)
    assert {each.asked for each in trial_of(facts).arrivals} == {True}
    assert {frame.port for frame in known(trial_of(facts).frames)} == {5123, 5124}


def test_the_first_port_need_not_be_the_busiest(cabled: Stage) -> None:
    """A single datagram to one port comes first, a stream to another one right behind it."""
    begun: list[object] = []

    def talk(_: float, received: int) -> bool:
        if not begun:
            begun.append(cabled.talker.send_datagrams(GROUP, 5124, interface="eth0", interval=60))
        elif received and len(begun) == 1:
            begun.append(cabled.talker.send_datagrams(GROUP, 5123, interface="eth0", interval=0.005))
        return True

    facts = cabled.listener.run(lambda: collect(GROUP, listen=2.0, progress=talk))
    assert (facts.target.port, facts.target.port_found) == (5123, True)


def test_a_port_that_shows_itself_too_late(cabled: Stage) -> None:
    """Where nothing came in the first half of the time, no socket can receive, but the frames tell the port."""
    began: list[float] = []

    def talk(seconds: float, _: int) -> bool:
        if began and seconds < began[-1] and len(began) > 1:
            cabled.talker.send_datagrams(GROUP, 5123, interface="eth0")
        began.append(seconds)
        return True

    def late() -> Facts:
        return collect(GROUP, listen=1.2, progress=talk)

    facts = cabled.listener.run(late)
    assert (facts.target.port, facts.target.port_found, trial_of(facts).arrivals) == (None, False, ())
    assert {frame.port for frame in known(trial_of(facts).frames)} == {5123}


def test_without_privileges_a_socket_tells_the_port(cabled: Stage, monkeypatch: pytest.MonkeyPatch) -> None:
    """A program that is bound to the group names the port; two programs on two ports do not."""
    monkeypatch.setattr(LinuxHost, "open_capture", lambda _: Unread("Only root."))
    with cabled.listener.entered(), ExitStack() as opened:
        for port, expected in ((5123, 5123), (5124, None)):
            program = opened.enter_context(socket.socket(socket.AF_INET, socket.SOCK_DGRAM))
            program.bind((GROUP, port))
            assert facts_of(cabled.listener, GROUP).target.port == expected


def test_other_members_and_a_querier(cabled: Stage) -> None:
    """The reports of other hosts are read from the wire; this host's own are not."""

    def begin(seconds: float, _: int) -> bool:
        if not began:
            cabled.talker.join_and_never_read(GROUP, PORT, interface="eth0")
            cabled.talker.send_queries("eth0", source=TALKER)
        began.append(seconds)
        return True

    began: list[float] = []
    trial = trial_of(facts_of(cabled.listener, GROUP, PORT, listen=1.5, progress=begin))
    assert [(each.interface, each.host, each.version) for each in known(trial.reporters)] == [("eth0", TALKER, 3)]
    assert {each.announced for each in known(trial.queries) if each.querier == TALKER} == {125.0}


def test_an_interface_that_vanishes_meanwhile(made: Stage) -> None:
    """The trial goes on to its end."""
    made.cable()
    made.second_interface()
    vanished: list[float] = []

    def remove(seconds: float, received: int) -> bool:
        if not vanished:
            made.listener.remove_interface("eth1")
            vanished.append(seconds)
        return True

    facts = facts_of(made.listener, GROUP, PORT, progress=remove)
    assert vanished
    assert {each.interface for each in trial_of(facts).joins} == {"eth0", "eth1"}


def test_progress_is_told_and_may_end_it(cabled: Stage) -> None:
    """The caller hears of the datagrams so far, and its word ends the listening."""
    cabled.talker.send_datagrams(GROUP, PORT, interface="eth0")
    heard: list[tuple[float, int]] = []
    enough = until(10)

    def progress(seconds: float, received: int) -> bool:
        heard.append((seconds, received))
        return enough(seconds, received)

    trial = trial_of(facts_of(cabled.listener, GROUP, PORT, listen=PATIENCE, progress=progress))
    assert trial.seconds < PATIENCE
    assert sum(each.count for each in trial.arrivals) >= 10
    assert heard == sorted(heard)


def test_what_waits_at_the_end_is_taken() -> None:
    """Also where the time is over before the first look."""
    ours, theirs = socket.socketpair()
    taken = []
    with ours, theirs, closing(Listening()) as listening:
        listening.add([ours.fileno()], lambda: taken.append(ours.recv(9)))
        theirs.send(b"late")
        listening.run(0.0, lambda: 0)
    assert taken == [b"late"]


def test_an_interruption_leaves_nothing(cabled: Stage) -> None:
    """After a KeyboardInterrupt all sockets are closed and all groups are left."""

    def interrupt(seconds: float, received: int) -> bool:
        raise KeyboardInterrupt

    before = descriptors()
    with pytest.raises(KeyboardInterrupt):
        cabled.listener.run(collect, GROUP, PORT, progress=interrupt)
    assert descriptors() == before
    facts = facts_of(cabled.listener, GROUP, PORT, listen=0)
    assert GROUP not in {str(each.group) for each in known(facts.memberships)}


def test_what_comes_late_is_counted_once(cabled: Stage) -> None:
    """What begins when the trial has been widened arrives at both receivers, and is counted as it was asked for."""
    started: list[Any] = []

    def begin(seconds: float, received: int) -> bool:
        if seconds > LISTEN and not started:
            started.append(cabled.talker.send_datagrams(GROUP, PORT, interface="eth0"))
        return True

    trial = trial_of(facts_of(cabled.listener, GROUP, PORT, TALKER, listen=1.5 * LISTEN, progress=begin))
    assert trial.widened
    assert trial.arrivals
    assert all(each.asked for each in trial.arrivals)


def test_no_revival_where_another_program_is_a_member(cabled: Stage) -> None:
    """The network cannot see us leave and join anew while another program is a member, so that is not tried."""
    cabled.listener.join_and_never_read(GROUP, PORT + 1, interface="eth0")

    def begin(seconds: float, received: int) -> bool:
        if not started:
            started.append(cabled.talker.send_datagrams(GROUP, PORT, interface="eth0", pauses=(1.3, 60)))
        return True

    started: list[Any] = []
    trial = trial_of(facts_of(cabled.listener, GROUP, PORT, listen=3.2, progress=begin))
    assert trial.seconds - trial.arrivals[0].last > 1.3
    assert trial.revived is None


def test_the_tag_of_a_vlan(cabled: Stage) -> None:
    """Frames that come in with a tag are told apart from others."""
    packet = udp_packet((TALKER, 4000), (GROUP, PORT), b"tagged")
    frame = bytes.fromhex("01005e010203 020000000002 8100 0005 0800") + packet
    with cabled.talker.run(socket.socket, 17, socket.SOCK_RAW) as tagging:  # AF_PACKET
        tagging.bind(("eth0", 0))

        def send(seconds: float, received: int) -> bool:
            tagging.send(frame)
            return True

        facts = facts_of(cabled.listener, GROUP, PORT, progress=send)
    assert {(each.vlan, each.port) for each in known(trial_of(facts).frames)} == {(5, PORT)}


def test_many_kinds_are_bounded(cabled: Stage, monkeypatch: pytest.MonkeyPatch) -> None:
    """When there are too many kinds of datagrams, all are counted still."""
    from multicast_expert.doctor.trial import arrivals
    from multicast_expert.wire import tallies

    monkeypatch.setattr(arrivals, "KINDS", 3)
    monkeypatch.setattr(tallies, "KINDS", 3)
    with ExitStack() as opened:
        for hops in range(1, 9):
            opened.enter_context(cabled.talker.send_datagrams(GROUP, PORT, interface="eth0", hop_limit=hops))
        trial = trial_of(facts_of(cabled.listener, GROUP, PORT, listen=PATIENCE, progress=until(41)))
    assert len(trial.arrivals) == len(known(trial.frames)) == 3
    assert sum(each.count for each in trial.arrivals) > 40


def test_a_small_buffer_drops(cabled: Stage) -> None:
    """A receiver that does not keep up shows its drops; the buffer is told in the bytes that a program asks for."""
    member = udp_socket(cabled.listener, 4, (GROUP, PORT))
    with member:
        member.setsockopt(1, 8, 4096)
        join(member, GROUP, cabled.listener.interface("eth0").index())
        cabled.talker.send_datagrams(GROUP, PORT, interface="eth0", size=1000, interval=0.005)
        facts = facts_of(cabled.listener, GROUP, PORT)
    trial = trial_of(facts)
    before, after = ({each.inode: each.drops for each in sockets} for sockets in (known(facts.sockets), trial.sockets))
    assert all(after[inode] > drops for inode, drops in before.items())
    assert trial.counters["Udp.RcvbufErrors"] > 0
    assert trial.socket_drops == 0
    assert trial.buffer is not None
    assert trial.buffer.asked == trial.buffer.granted


# Without frames


@pytest.fixture
def blind(monkeypatch: pytest.MonkeyPatch) -> None:
    """Raw frames are not shown, as to those without privileges."""
    monkeypatch.setattr(LinuxHost, "open_capture", lambda _: Unread("Root only.", "sudo mcast doctor"))


@pytest.mark.usefixtures("blind")
def test_losses_of_others_that_begin_late(cabled: Stage) -> None:
    """What another group loses from the middle of the trial on goes on when we have left: it is not put down to us."""
    cabled.listener.join_and_never_read("239.77.0.1", PORT + 1, interface="eth0")

    def begin(seconds: float, received: int) -> bool:
        if seconds > 0.7 and not started:
            started.append(cabled.talker.send_datagrams("239.77.0.1", PORT + 7, interface="eth0"))
        return True

    started: list[Any] = []
    facts = facts_of(cabled.listener, GROUP, PORT, listen=1.5, progress=begin)
    trial = trial_of(facts)
    assert trial.counters["Udp.IgnoredMulti"] > 5
    assert trial.afterwards is not None
    assert trial.afterwards["Udp.IgnoredMulti"] > 5
    assert trial.aside >= 0.8
    assert "Udp.IgnoredMulti" not in trial.course[0].counters
    assert trial.course[-1].counters["Udp.IgnoredMulti"] > 0
    assert judge(facts).cause is None


@pytest.mark.usefixtures("blind")
def test_losses_of_the_target_end_when_it_is_left(cabled: Stage) -> None:
    """What the target loses is lost from the beginning on, and no more after we have left."""
    cabled.talker.send_datagrams(GROUP, PORT + 1, interface="eth0")
    facts = facts_of(cabled.listener, GROUP, PORT, listen=1.5)
    trial = trial_of(facts)
    assert trial.afterwards is not None
    assert "Udp.IgnoredMulti" not in trial.afterwards
    assert trial.course[1].counters["Udp.IgnoredMulti"] > 0
    cause = judge(facts).cause
    assert cause is not None
    assert cause.check == "port"


def test_a_burst_is_no_stream(cabled: Stage) -> None:
    """A burst and a silence after it do not make the doctor join anew, and take the next burst for a revival."""

    def begin(seconds: float, received: int) -> bool:
        if not started:
            started.append(cabled.talker.send_datagrams(GROUP, PORT, interface="eth0", pauses=(0.3, 60)))
        return True

    started: list[Any] = []
    trial = trial_of(facts_of(cabled.listener, GROUP, PORT, listen=2.5, progress=begin))
    (arrived,) = trial.arrivals
    assert arrived.count >= 5
    assert trial.seconds - arrived.last > 1
    assert trial.revived is None


# The wire


def asking(cabled: Stage, *, source: str) -> Callable[[float, int], bool]:
    """The talker asks for memberships with each report of progress; after the fourth time the listening ends."""
    asked: list[float] = []

    def ask(seconds: float, received: int) -> bool:
        cabled.talker.send_queries("eth0", source=source if "." in source else TALKER)
        asked.append(seconds)
        return len(asked) < 4

    return ask


@pytest.mark.parametrize("group", [GROUP, GROUP6])
def test_queries_on_the_wire_and_delivered(cabled: Stage, group: str) -> None:
    """Who asks, by which version, and whether the kernel lets the questions through."""
    source = TALKER if group == GROUP else "fe80::1"
    trial = trial_of(facts_of(cabled.listener, group, PORT, listen=PATIENCE, progress=asking(cabled, source=source)))
    (query,) = known(trial.queries)
    assert isinstance(query, Queries)
    assert (query.interface, query.querier, query.for_group) == ("eth0", source, False)
    assert query.version == (3 if group == GROUP else 2)
    assert query.seen >= 2
    assert query.delivered == query.seen
    assert query.interval is not None
    assert query.interval > 0.05
    assert trial.interface_counters["eth0"]["Icmp6InGroupMembQueries"] >= 2


def test_queries_that_the_reverse_path_filter_drops(cabled: Stage) -> None:
    """They are on the wire, and not delivered."""
    cabled.listener.set_reverse_path_filter("eth0", 1)
    trial = trial_of(facts_of(cabled.listener, GROUP, PORT, listen=PATIENCE, progress=asking(cabled, source="9.9.9.9")))
    (query,) = known(trial.queries)
    assert (query.querier, query.delivered) == ("9.9.9.9", 0)
    assert trial.counters["TcpExt.IPReversePathFilter"] >= query.seen - 1


def test_damaged_datagrams(cabled: Stage) -> None:
    """Wrong checksums are counted in the frames, and nothing arrives."""
    cabled.talker.forge_datagrams(GROUP, PORT, interface="eth0", source=TALKER, wrong_checksum=True)
    trial = trial_of(facts_of(cabled.listener, GROUP, PORT))
    assert trial.arrivals == ()
    (frame,) = known(trial.frames)
    assert frame.bad_checksums == frame.count > 0


def test_what_this_host_sends_is_told_apart(cabled: Stage) -> None:
    """A frame that leaves is not one that comes in."""
    cabled.listener.send_datagrams(GROUP, PORT, interface="eth0")
    trial = trial_of(facts_of(cabled.listener, GROUP, PORT))
    assert {frame.outgoing for frame in known(trial.frames)} == {True}
    assert trial.arrivals == ()


def test_fragments_are_counted(cabled: Stage) -> None:
    """A datagram of three packets is one arrival and three frames."""
    cabled.talker.send_datagrams(GROUP, PORT, interface="eth0", size=4000, interval=0.1)
    trial = trial_of(facts_of(cabled.listener, GROUP, PORT, listen=PATIENCE, progress=until(2)))
    frames = known(trial.frames)
    assert sum(frame.fragments for frame in frames) == sum(frame.count for frame in frames)
    assert {frame.port for frame in frames} == {PORT, None}
    assert trial.arrivals


# The firewall


def test_a_rule_and_what_it_counted(cabled: Stage) -> None:
    """Only the packets that it refused while the trial listened are told."""
    cabled.talker.send_datagrams(GROUP, PORT, interface="eth0")
    rule = cabled.listener.firewall_drop(f"ip saddr {TALKER} udp dport {PORT}")
    facts_of(cabled.listener, GROUP, PORT)
    facts = facts_of(cabled.listener, GROUP, PORT)
    (found,) = known(facts.firewall)
    assert (found.tool, found.hook, found.matches, found.matches_queries) == ("nftables", "input", True, False)
    assert found.text == f"ip saddr {TALKER} udp dport {PORT} counter drop"
    assert 3 < found.packets < rule.dropped()
    frames = sum(frame.count for frame in known(trial_of(facts).frames))
    # The rule is read before the capture begins and after it ends, as much earlier and later as the machine takes.
    assert frames - 4 <= found.packets


@pytest.mark.parametrize("variant", ["nft", "legacy"])
def test_iptables(cabled: Stage, variant: str) -> None:
    """Both kinds of iptables show their rules, whatever nft says of them."""
    tool = f"iptables-{variant}"
    try:
        cabled.listener.command(tool, "-A", "INPUT", "-m", "pkttype", "--pkt-type", "multicast", "-j", "DROP")
    except MulticastExpertError as error:
        pytest.skip(f"{tool}: {error}")
    cabled.talker.send_datagrams(GROUP, PORT, interface="eth0")
    (found,) = known(facts_of(cabled.listener, GROUP, PORT).firewall)
    named = "iptables-legacy" if variant == "legacy" else "iptables"
    assert (found.tool, found.chain, found.hook, found.handle) == (named, "filter INPUT", "input", 1)
    assert (found.matches, found.matches_queries) == (True, True)
    assert found.packets > 3
    assert found.text == "-A INPUT -m pkttype --pkt-type multicast -j DROP"


def test_reports_that_a_rule_keeps_inside(cabled: Stage) -> None:
    """A rule on the way out is told as one that concerns reports only."""
    cabled.listener.firewall_drop("igmp", direction="output")
    (found,) = known(facts_of(cabled.listener, GROUP, PORT, listen=0).firewall)
    assert (found.hook, found.matches, found.matches_queries, found.matches_reports) == ("output", False, False, True)


# Without privileges

UNPRIVILEGED = """
from multicast_expert.doctor import collect, facts_to_text
print(facts_to_text(collect("239.1.2.3", 5000, listen=0.4)))
"""


def test_without_privileges(cabled: Stage) -> None:
    """What is shown to root only is unread, with the command that would show it; all else is there."""
    cabled.talker.send_datagrams(GROUP, PORT, interface="eth0")
    done = run(cabled.listener, [sys.executable, "-c", UNPRIVILEGED], privileged=False)
    assert done.returncode == 0, done.stderr
    facts = facts_from_text(done.stdout)
    trial = trial_of(facts)
    assert trial.arrivals
    assert not facts.machine.may_capture
    for unread in (trial.frames, trial.queries, facts.firewall):
        assert isinstance(unread, Unread)
        assert "root" in unread.reason
        assert unread.remedy == f"sudo mcast doctor {ENDPOINT}"
    assert known(facts.bridges) == ()
    assert trial.probes[0].came_back
    assert trial.counters["Ip.InReceives"] > 0


def test_names_in_a_command_are_quoted() -> None:
    """What a remedy repeats cannot begin a command of its own."""
    target = Target(GROUP6, PORT, None, "a;reboot", 6)
    assert shlex.split(again_as_root(target)) == ["sudo", "mcast", "doctor", f"[{GROUP6}]:{PORT}", "-i", "a;reboot"]


def test_missing_programs_are_said(cabled: Stage, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where nobody can show the rules, it is said which program is missing."""
    from multicast_expert.doctor.host import linux_firewall

    monkeypatch.setattr(linux_firewall, "find_program", lambda program: None)
    firewall = facts_of(cabled.listener, GROUP, PORT, listen=0).firewall
    assert isinstance(firewall, Unread)
    assert "nft" in firewall.reason


def test_a_program_that_hangs(cabled: Stage, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Where nft does not answer, the rules are unread, whatever iptables says of its own; and it takes no long time."""
    hanging = tmp_path / "nft"
    hanging.write_text("#!/bin/sh\nexec sleep 60\n")
    hanging.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=os.pathsep)
    begin = time.monotonic()
    firewall = facts_of(cabled.listener, GROUP, PORT, listen=0).firewall
    assert isinstance(firewall, Unread)
    assert "nft -j list ruleset did not end within 1.5 seconds." in firewall.reason
    assert time.monotonic() - begin < 10


def test_a_signal_ends_the_program(cabled: Stage) -> None:
    """Ctrl-C ends a collection at once."""
    script = f"from multicast_expert.doctor import collect\ncollect('{GROUP}', {PORT}, listen=60)"
    process = cabled.listener.popen([sys.executable, "-c", script], stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    index = cabled.listener.interface("eth0").index()

    def joined() -> bool:
        listing = cabled.listener.run(Path("/proc/thread-self/net/igmp").read_text)
        return f"{index}\t" in listing and "030201EF" in listing

    wait_until(joined, "the program has joined")
    process.send_signal(2)
    _, messages = process.communicate(timeout=PATIENCE)
    assert b"KeyboardInterrupt" in messages
    assert not joined()


def test_a_program_on_another_port_is_suspected(cabled: Stage) -> None:
    """What comes to a port without a program, of a group that a program joined on another one, may be its stream."""
    with cabled.listener.join_and_never_read(GROUP, PORT + 1, interface="eth0"):
        cabled.talker.send_datagrams(GROUP, PORT, interface="eth0")
        said = doctor(cabled.listener, [ENDPOINT], 1)
    (found,) = [each for each in said.report["findings"] if each["check"] == "program"]
    assert (found["verdict"], said.status) == ("suspect", 0)
    assert f"on port {PORT + 1} joined the group" in found["summary"]


def test_other_systems_get_what_all_tell(cabled: Stage) -> None:
    """What only Linux tells is unread elsewhere; the rest is the same."""
    host = cabled.listener.run(PlainHost, Target(GROUP, PORT, None, None, 4))
    assert {each.name for each in known(host.interfaces())} == {"lo", "eth0"}
    assert isinstance(host.firewall(), Unread)
    assert isinstance(host.open_capture(), Unread)
    assert isinstance(host.sockets(), Unread)
    assert host.machine().release == kernel.SYSTEM.release()
