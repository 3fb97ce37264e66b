"""A receiver gets its own groups on its own interfaces and nothing else, on every system alike."""

import socket
from contextlib import ExitStack
from ipaddress import IPv4Interface

import pytest

from engines.systems import GROUP, HERE, OTHER, PEER, PORT, STRANGER, System, heard
from multicast_expert import Datagram, DatagramBuffer, MulticastExpertError, MulticastOSError

MSG_PEEK = 2


def refuse_modern_calls(system: System, version: int) -> None:
    """Make the kernel say that it knows no MCAST_JOIN_GROUP and MCAST_JOIN_SOURCE_GROUP."""
    for option in ("MCAST_JOIN_GROUP", "MCAST_JOIN_SOURCE_GROUP"):
        system.kernel.fail(
            "setsockopt",
            system.number("ENOPROTOOPT"),
            level=0 if version == 4 else 41,
            number=system.platform.options[option][1],
            times=99,
        )


class TestReceiving:
    """What arrives, and what does not."""

    def test_own_group(self, system: System, version: int) -> None:
        """One copy, whole, with the sender's address in the shape of the family."""
        with system.receiver([GROUP[version]]) as receiver:
            system.arrive(GROUP[version], b"hello")
            received = receiver.recvfrom()
            assert receiver.recvfrom() is None
        expected = (PEER[version], 40000)
        assert received == (b"hello", expected if version == 4 else (*expected, 0, 0))

    def test_largest_datagram(self, system: System, version: int) -> None:
        """The default buffer cuts nothing; an empty datagram is one too."""
        with system.receiver([GROUP[version]], receive_buffer=200_000) as receiver:
            whole = bytes(range(256)) * 234
            system.arrive(GROUP[version], whole)
            system.arrive(GROUP[version], b"")
            assert heard(receiver) == [whole, b""]

    def test_not_other_groups_on_the_port(self, system: System, version: int) -> None:
        """Whoever on the host has joined them: a receiver of our own or another program."""
        with system.receiver([GROUP[version]]) as one, system.receiver([OTHER[version]]) as other:
            system.kernel.other_program_joins(OTHER[version], 2)
            system.arrive(OTHER[version], b"other")
            system.arrive(GROUP[version], b"own")
            assert heard(one) == [b"own"]
            assert heard(other) == [b"other"]

    def test_several_groups(self, system: System, version: int) -> None:
        """Each once, whatever the order."""
        with system.receiver([GROUP[version], OTHER[version]]) as receiver:
            system.arrive(OTHER[version], b"1")
            system.arrive(GROUP[version], b"2")
            assert sorted(heard(receiver)) == [b"1", b"2"]

    def test_fifty_groups(self, system: System, version: int) -> None:
        """Many groups on one receiver just work."""
        prefix = "239.2.0." if version == 4 else "ff15::"
        groups = [f"{prefix}{number}" for number in range(1, 51)]
        with system.receiver(groups) as receiver:
            for group in groups:
                system.arrive(group, group.encode())
            assert sorted(heard(receiver)) == sorted(group.encode() for group in groups)

    def test_not_unicast(self, system: System, version: int) -> None:
        """A datagram to the host's own address and our port is none of ours."""
        with system.receiver([GROUP[version]]) as receiver:
            system.arrive(HERE[version], b"unicast")
            system.arrive(GROUP[version], b"own")
            assert heard(receiver) == [b"own"]
            assert receiver.stats().filtered == (1 if system.is_windows and version == 4 else 0)

    def test_not_unicast_to_the_address_of_an_ipv6_socket(self, system: System) -> None:
        """Where an IPv6 socket is bound to an address of the interface, unicast to it reaches us and is refused."""
        eth0 = system.network.hosts["a"].interface(2)
        assert eth0 is not None
        eth0.ip6_addrs.reverse()
        with system.receiver([GROUP[6]]) as receiver:
            system.arrive(HERE[6], b"unicast")
            assert receiver.recv() is None
            assert receiver.stats().filtered == system.is_windows

    def test_not_the_same_group_on_another_interface(self, system: System, version: int) -> None:
        """Joined on eth0; another receiver and another program on eth1 do not open that door."""
        with system.receiver([GROUP[version]], "eth0") as zero, system.receiver([GROUP[version]], "eth1") as one:
            system.kernel.other_program_joins(GROUP[version], 3)
            system.arrive(GROUP[version], b"lan0", "lan0")
            system.arrive(GROUP[version], b"lan1", "lan1")
            assert heard(zero) == [b"lan0"]
            assert heard(one) == [b"lan1"]

    def test_two_interfaces(self, system: System, version: int) -> None:
        """What arrives on either comes once."""
        with system.receiver([GROUP[version], OTHER[version]], "eth0 eth1") as receiver:
            system.arrive(GROUP[version], b"lan0", "lan0")
            system.arrive(GROUP[version], b"lan1", "lan1")
            system.arrive(OTHER[version], b"other", "lan1")
            assert sorted(heard(receiver)) == [b"lan0", b"lan1", b"other"]

    def test_all_interfaces(self, system: System, version: int) -> None:
        """Named none, it listens on all but the loopback one."""
        with system.receiver([GROUP[version]], None) as receiver:
            assert [iface.machine_name for iface in receiver.network_interfaces] == ["eth0", "eth1"]
            system.arrive(GROUP[version], b"lan0", "lan0")
            system.arrive(GROUP[version], b"lan1", "lan1")
            assert sorted(heard(receiver)) == [b"lan0", b"lan1"]

    def test_link_local_groups(self, system: System) -> None:
        """224.0.0.0/24 and ff02:: mean another thing on each interface."""
        for group in ("224.0.0.199", "ff02::199"):
            with system.receiver([group], "eth1") as receiver:
                system.arrive(group, b"lan0", "lan0")
                system.arrive(group, b"lan1", "lan1")
                assert heard(receiver) == [b"lan1"]

    def test_two_receivers_of_one_group(self, system: System, version: int) -> None:
        """Each gets its copy: sharing the port takes nothing from the other."""
        with system.receiver([GROUP[version]]) as one, system.receiver([GROUP[version]]) as two:
            system.arrive(GROUP[version], b"both")
            assert heard(one) == heard(two) == [b"both"]

    def test_interfaces_that_share_an_address(self, system: System) -> None:
        """The join goes by index: where eth1 has the address of eth0 too, eth1 is joined when eth1 was named."""
        eth1 = system.network.hosts["a"].interface(3)
        assert eth1 is not None
        eth1.ip4_addrs[:] = [IPv4Interface("10.0.0.1/24")]
        with system.receiver([GROUP[4]], "eth1") as receiver:
            system.arrive(GROUP[4], b"lan0", "lan0")
            system.arrive(GROUP[4], b"lan1", "lan1")
            assert heard(receiver) == [b"lan1"]

    def test_facts_of_a_datagram(self, system: System, version: int) -> None:
        """Group, interface and hop limit; the time of arrival where it was asked for and the system tells it."""
        with system.receiver([GROUP[version]], "eth1", timestamps=True) as receiver:
            system.network.clock = lambda: 1_700_000_000_123_456_000
            system.arrive(GROUP[version], b"facts", "lan1", hop_limit=7)
            datagram = receiver.receive()
        time = None if system.is_windows else 1_700_000_000_123_456_000
        assert datagram == Datagram(b"facts", datagram.sender, GROUP[version], 3, "eth1", 7, time)

    def test_the_traffic_class(self, system: System, version: int) -> None:
        """Where it was asked for; a system of Windows that is older than its option tells none, and receives."""
        with (
            system.receiver([GROUP[version]], "eth1", traffic_class=True) as receiver,
            system.receiver([GROUP[version]], "eth1") as other,
        ):
            system.arrive(GROUP[version], b"marked", "lan1", traffic_class=0xB9)
            assert receiver.receive().traffic_class == (None if system.is_old_windows else 0xB9)
            assert other.receive().traffic_class is None

    def test_small_buffers(self, system: System, version: int) -> None:
        """What is longer than bufsize is cut and raises nothing; the next datagram is whole."""
        with system.receiver([GROUP[version]]) as receiver:
            system.arrive(GROUP[version], b"0123456789")
            system.arrive(GROUP[version], b"next")
            assert receiver.recv(4) == b"0123"
            assert receiver.recv(4) == b"next"
            assert receiver.recv(4) is None
            assert receiver.stats().truncated == 1

    def test_peeking(self, system: System, version: int) -> None:
        """MSG_PEEK leaves the datagram there, and does not get stuck at one that is none of ours."""
        with system.receiver([GROUP[version]]) as receiver:
            system.arrive(HERE[version], b"unicast")
            system.arrive(GROUP[version], b"own")
            assert receiver.recv(flags=MSG_PEEK) == b"own"
            assert heard(receiver) == [b"own"]

    def test_nothing_within_the_timeout(self, system: System, version: int) -> None:
        """None after the timeout, and none of it is waited where something is there."""
        with system.receiver([GROUP[version]], timeout=0.01) as receiver:
            assert receiver.recvfrom() is None
            receiver.settimeout(3600)
            system.arrive(GROUP[version], b"there")
            assert receiver.recv() == b"there"

    def test_descriptors(self, system: System, version: int) -> None:
        """filenos() are those of all open sockets, and close() closes them."""
        with system.receiver([GROUP[version], OTHER[version]], "eth0 eth1") as receiver:
            assert sorted(receiver.filenos()) == sorted(sock.fileno() for sock in system.kernel.open_sockets())
        assert system.kernel.open_sockets() == []

    def test_receive_buffer(self, system: System, version: int) -> None:
        """What was asked for and granted can be read back."""
        with system.receiver([GROUP[version]], receive_buffer=123_456) as receiver:
            assert receiver.receive_buffer == 123_456


class TestIntoMemory:
    """`receive_into` gives what `receive` gives."""

    def test_own_groups_of_two_interfaces(self, system: System, version: int) -> None:
        """The rows have payload, origin and time; what is none of ours has no row."""
        buffer = DatagramBuffer(10, 65_535)
        system.network.clock = lambda: 1_700_000_000_123_456_000
        with system.receiver([GROUP[version]], "eth0 eth1", timestamps=True) as receiver:
            for link, payload in (("lan0", b"zero"), ("lan1", b"one")):
                system.arrive(HERE[version], b"unicast", link)
                system.arrive(OTHER[version], b"other", link)
                system.arrive(GROUP[version], payload, link, hop_limit=7)
                assert receiver.receive_into(buffer) == 1
            with pytest.raises(TimeoutError):
                receiver.receive_into(buffer, timeout=0.01)
            assert receiver.stats().datagrams == 2
        assert bytes(buffer.data) == b"zeroone"
        assert list(buffer.timestamps_ns) == [0 if system.is_windows else 1_700_000_000_123_456_000] * 2
        origins = [buffer.origins[each] for each in buffer.sources]
        assert [(each.group, each.interface_name, each.hop_limit) for each in origins] == [
            (GROUP[version], "eth0", 7),
            (GROUP[version], "eth1", 7),
        ]
        assert {each.sender[:2] for each in origins} == {(PEER[version], 40000)}

    def test_a_full_buffer_leaves_the_rest(self, system: System, version: int) -> None:
        """What finds no room, in rows or in bytes, is received next, whole and in order."""
        long = bytes(40_000)
        sent = [b"1", b"2", b"3", long, long, b"4"]
        buffer = DatagramBuffer(4, 65_535)
        taken: list[bytes] = []
        with system.receiver([GROUP[version]], receive_buffer=200_000) as receiver:
            for payload in sent:
                system.arrive(GROUP[version], payload)
            while len(taken) < len(sent):
                assert receiver.receive_into(buffer)
                taken += [datagram.data for datagram in buffer]
                buffer.clear()
        assert taken == sent


class TestSources:
    """Source-specific memberships, and sources that are blocked."""

    def test_from_the_asked_source_only(self, system: System, version: int) -> None:
        """Others to the same group stay out; where a system cannot, it refuses, and does not open to all sources."""
        chosen = system.receiver([GROUP[version]], source_ips=[STRANGER[version]])
        if not system.knows_sources(version):
            with pytest.raises(MulticastOSError, match="does not know the option") as caught:
                chosen.open()
            assert caught.value.errno == 10042
            assert system.kernel.open_sockets() == []
            return
        with chosen as receiver:
            system.arrive(GROUP[version], b"peer", source=PEER[version])
            system.arrive(GROUP[version], b"asked", source=STRANGER[version])
            assert heard(receiver) == [b"asked"]

    def test_two_sources_on_two_interfaces(self, system: System, version: int) -> None:
        """Each (group, source, interface) is a membership of its own."""
        sources = [STRANGER[version], PEER[version]]
        chosen = system.receiver([GROUP[version]], "eth0 eth1", source_ips=sources)
        if not system.knows_sources(version):
            with pytest.raises(MulticastOSError, match="does not know the option"):
                chosen.open()
            return
        with chosen as receiver:
            for link in ("lan0", "lan1"):
                for number, source in enumerate(sources):
                    system.arrive(GROUP[version], f"{link} {number}".encode(), link, source)
                system.arrive(GROUP[version], b"neither", link, HERE[version].replace("1", "9"))
            assert sorted(heard(receiver)) == [b"lan0 0", b"lan0 1", b"lan1 0", b"lan1 1"]

    def test_fallback_to_the_classic_call(self, system: System, version: int) -> None:
        """A kernel without MCAST_JOIN_GROUP is asked the older way, and still by interface."""
        refuse_modern_calls(system, version)
        with system.receiver([GROUP[version]], "eth1") as receiver:
            system.arrive(GROUP[version], b"lan0", "lan0")
            system.arrive(GROUP[version], b"lan1", "lan1")
            assert heard(receiver) == [b"lan1"]

    def test_fallback_to_the_classic_call_for_a_source(self, system: System) -> None:
        """The same for one source over IPv4; no system has a classic call that names an IPv6 source."""
        refuse_modern_calls(system, 4)
        with system.receiver([GROUP[4]], "eth1", source_ips=[STRANGER[4]]) as receiver:
            system.arrive(GROUP[4], b"lan0", "lan0", STRANGER[4])
            system.arrive(GROUP[4], b"peer", "lan1", PEER[4])
            system.arrive(GROUP[4], b"lan1", "lan1", STRANGER[4])
            assert heard(receiver) == [b"lan1"]

    def test_blocked_source(self, system: System, version: int) -> None:
        """Blocked it is not heard, unblocked it is again; the others are heard all the time."""
        with system.receiver([GROUP[version]]) as receiver:
            if not system.knows_sources(version):
                with pytest.raises(MulticastOSError, match="does not know the option"):
                    receiver.block_source(GROUP[version], STRANGER[version])
                system.arrive(GROUP[version], b"still heard", source=STRANGER[version])
                assert heard(receiver) == [b"still heard"]
                return
            receiver.block_source(GROUP[version], STRANGER[version])
            system.arrive(GROUP[version], b"blocked", source=STRANGER[version])
            system.arrive(GROUP[version], b"peer")
            receiver.unblock_source(GROUP[version], STRANGER[version])
            system.arrive(GROUP[version], b"unblocked", source=STRANGER[version])
            assert heard(receiver) == [b"peer", b"unblocked"]


class TestRunTime:
    """Groups that are joined and left while the receiver is open."""

    def test_join_and_leave(self, system: System, version: int) -> None:
        """A group is heard from its join to its leave, and leaves no socket behind."""
        with system.receiver([GROUP[version]]) as receiver:
            before = len(system.kernel.open_sockets())
            system.arrive(OTHER[version], b"too early")
            receiver.join_group(OTHER[version])
            system.arrive(OTHER[version], b"in time")
            assert heard(receiver) == [b"in time"]
            receiver.leave_group(OTHER[version])
            system.arrive(OTHER[version], b"too late")
            system.arrive(GROUP[version], b"still")
            assert heard(receiver) == [b"still"]
            assert len(system.kernel.open_sockets()) == before

    def test_leave_one_interface(self, system: System, version: int) -> None:
        """Left on eth1, the group goes on on eth0."""
        with system.receiver([GROUP[version]], "eth0 eth1") as receiver:
            receiver.leave_group(GROUP[version], iface=system.interface("eth1"))
            system.arrive(GROUP[version], b"lan0", "lan0")
            system.arrive(GROUP[version], b"lan1", "lan1")
            assert heard(receiver) == [b"lan0"]


class TestLoopback:
    """What this host hears of its own datagrams. Winsock decides where they are received, the others where sent."""

    @pytest.mark.parametrize("receiver_wants", [False, True])
    @pytest.mark.parametrize("sender_wants", [False, True])
    def test_external_loopback(self, system: System, version: int, sender_wants: bool, receiver_wants: bool) -> None:
        """On an ordinary interface: the side that decides decides alone, and other hosts get it in any case."""
        with (
            system.receiver([GROUP[version]], enable_external_loopback=receiver_wants) as receiver,
            system.transmitter([GROUP[version]], enable_external_loopback=sender_wants) as transmitter,
        ):
            transmitter.sendto(b"self", (GROUP[version], PORT))
            decides = receiver_wants if system.is_windows else sender_wants
            assert heard(receiver) == ([b"self"] if decides else [])
        assert [sent.data for sent in system.kernel.wire] == [b"self"]

    def test_loopback_interface(self, system: System, version: int) -> None:
        """On the loopback interface everything is heard, without any switch, and nothing leaves the host."""
        with (
            system.receiver([GROUP[version]], "lo") as receiver,
            system.transmitter([GROUP[version]], "lo") as transmitter,
        ):
            transmitter.sendto(b"self", (GROUP[version], PORT))
            received = receiver.recvfrom()
        assert received is not None
        assert received[0] == b"self"
        assert received[1][0] == ("127.0.0.1" if version == 4 else "::1")
        assert system.kernel.wire == []


class TestResets:
    """What a datagram that the receiving socket once sent can bring back does not end receiving."""

    def test_port_unreachable(self, system: System, version: int) -> None:
        """A reply to a closed port."""
        with system.receiver([GROUP[version]]) as receiver:
            for sock in system.kernel.open_sockets():
                sock.sendto(b"reply", (PEER[version], 9))
            system.arrive(GROUP[version], b"next")
            assert heard(receiver) == [b"next"]

    @pytest.mark.parametrize("error", ["EOPNOTSUPP", "EINVAL"])
    def test_resets_that_cannot_be_switched_off(
        self, error: str, version: int, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """An old Winsock refuses the switch: the receiver opens, and passes the errors over."""
        system = System("windows", monkeypatch)
        system.kernel.fail("ioctl_bytes", system.number(error), times=99)
        with system.receiver([GROUP[version]]) as receiver:
            for sock in system.kernel.open_sockets():
                sock.sendto(b"reply", (PEER[version], 9))
                system.kernel.time_exceeded(sock)
            system.arrive(GROUP[version], b"next")
            assert heard(receiver) == [b"next"]

    def test_an_error_that_matters(self, system: System, version: int) -> None:
        """Any other error is raised, with its number and the step."""
        with system.receiver([GROUP[version]]) as receiver:
            for call in ("recvmsg", "recvfrom"):
                system.kernel.fail(call, system.number("ENETDOWN"))
            system.arrive(GROUP[version], b"x")
            with pytest.raises(MulticastOSError) as caught:
                receiver.recv()
            assert caught.value.errno == system.errno("ENETDOWN")
            assert caught.value.step == "receive"


def test_plain_socket_rules(system: System, version: int) -> None:
    """Opened and closed once each, on every system."""
    with ExitStack() as stack:
        receiver = stack.enter_context(system.receiver([GROUP[version]]))
        with pytest.raises(MulticastExpertError, match="open already"):
            receiver.open()
    with pytest.raises(MulticastExpertError, match="not open"):
        receiver.close()
    assert socket.AF_INET6 == 10
