"""A socket that receives groups and unicast and sends, all on one port, on every system alike."""

from ipaddress import IPv4Interface, IPv6Interface

import pytest

from engines.systems import GROUP, HERE, OTHER, PEER, PORT, System, heard
from multicast_expert import Datagram, MulticastOSError


class TestReceiving:
    """What arrives, and what does not."""

    def test_groups_and_unicast(self, system: System, version: int) -> None:
        """Its groups on its interfaces, and unicast to every address of them; nothing else."""
        with system.both_ways(version, [GROUP[version]]) as sock:
            system.kernel.other_program_joins(OTHER[version], 2)
            system.kernel.other_program_joins(GROUP[version], 3)
            system.arrive(GROUP[version], b"group")
            system.arrive(HERE[version], b"unicast")
            system.arrive(OTHER[version], b"other group")
            system.arrive(GROUP[version], b"other interface", "lan1")
            system.arrive("10.1.0.1" if version == 4 else "fd01::1", b"other address", "lan1")
            datagrams = [sock.receive(), sock.receive()]
            assert sorted((each.data, each.group, each.destination) for each in datagrams) == [
                (b"group", GROUP[version], GROUP[version]),
                (b"unicast", None, HERE[version]),
            ]
            assert heard(sock) == []

    def test_no_unicast(self, system: System, version: int) -> None:
        """With unicast=False only groups come."""
        with system.both_ways(version, [GROUP[version]], unicast=False) as sock:
            system.arrive(HERE[version], b"unicast")
            system.arrive(GROUP[version], b"group")
            assert heard(sock) == [b"group"]

    def test_any_unicast(self, system: System, version: int) -> None:
        """With "any", unicast to the other interface's address comes too."""
        with system.both_ways(version, [GROUP[version]], unicast="any") as sock:
            system.arrive(HERE[version], b"here")
            system.arrive("10.1.0.1" if version == 4 else "fd01::1", b"there", "lan1")
            came = [sock.receive(timeout=0) for _ in range(2)]
            assert sorted((each.data, each.interface_name) for each in came) == [(b"here", "eth0"), (b"there", "eth1")]

    def test_named_unicast(self, system: System, version: int) -> None:
        """An address that was named, also one of another interface, and no other."""
        named = "10.1.0.1" if version == 4 else "fd01::1"
        with system.both_ways(version, [GROUP[version]], unicast=[named]) as sock:
            system.arrive(HERE[version], b"here")
            system.arrive(named, b"there", "lan1")
            assert heard(sock) == [b"there"]

    def test_no_group(self, system: System, version: int) -> None:
        """Without a group it receives unicast; groups can be joined and left meanwhile."""
        with system.both_ways(version) as sock:
            system.arrive(GROUP[version], b"too early")
            system.arrive(HERE[version], b"unicast")
            assert heard(sock) == [b"unicast"]
            membership = sock.join_group(GROUP[version])
            system.arrive(GROUP[version], b"group")
            assert heard(sock) == [b"group"]
            membership.leave()
            system.arrive(GROUP[version], b"too late")
            system.arrive(HERE[version], b"unicast")
            assert heard(sock) == [b"unicast"]

    def test_every_address_of_the_interface(self, system: System, version: int) -> None:
        """A second address receives too, and a reply comes from there."""
        eth0 = system.network.hosts["a"].interface(2)
        assert eth0 is not None
        second = "10.0.0.9" if version == 4 else "fd00::9"
        eth0.ip4_addrs.append(IPv4Interface("10.0.0.9/24"))
        eth0.ip6_addrs.append(IPv6Interface("fd00::9/64"))
        with system.both_ways(version) as sock:
            system.arrive(second, b"question")
            question = sock.receive()
            assert question.destination == second
            sock.reply(question, b"reply")
            assert system.kernel.wire[-1].source == (second, PORT)


class TestSending:
    """What leaves, from where."""

    def test_a_group_out_of_each_interface(self, system: System, version: int) -> None:
        """From the one port, with an address of each; or out of the named one."""
        with system.both_ways(version, None, "eth0 eth1", ttl=3) as sock:
            sock.sendto(b"each", (GROUP[version], PORT))
            sock.sendto(b"one", (GROUP[version], PORT), iface="eth1")
            assert sock.send_many([b"1", b"2"], (GROUP[version], PORT), iface="eth0") == 2
            sent = [(each.link, each.data, each.source[1], each.hop_limit) for each in system.kernel.wire]
            assert sent == [
                ("lan0", b"each", PORT, 3),
                ("lan1", b"each", PORT, 3),
                ("lan1", b"one", PORT, 3),
                ("lan0", b"1", PORT, 3),
                ("lan0", b"2", PORT, 3),
            ]

    def test_a_host(self, system: System, version: int) -> None:
        """From the one port, as far as the OS lets it, or as asked."""
        with system.both_ways(version, None, "eth1 eth0") as sock:
            default = system.kernel.DEFAULTS["unicast_hops"]
            for asked, expected in ((None, default), (3, 3), (None, default)):
                sock.sendto(b"host", (PEER[version], PORT), hop_limit=asked)
                sent = system.kernel.wire[-1]
                assert (sent.link, sent.source[1], sent.hop_limit) == ("lan0", PORT, expected)

    def test_reply(self, system: System, version: int) -> None:
        """To a question to the group, by its interface; to one to the host, from the address that was asked."""
        with system.both_ways(version, [GROUP[version]], "eth0 eth1") as sock:
            for link, peer in (("lan0", PEER[version]), ("lan1", "10.1.0.2" if version == 4 else "fd01::2")):
                system.arrive(GROUP[version], b"question", link, peer)
                question = sock.receive()
                sock.reply(question, b"reply")
                sent = system.kernel.wire[-1]
                assert (sent.link, sent.destination, sent.source[1]) == (link, (peer, 40000), PORT)
            system.arrive(HERE[version], b"question")
            sock.reply(sock.receive(), b"reply")
            assert system.kernel.wire[-1].source == (HERE[version], PORT)

    def test_a_free_port(self, system: System, version: int) -> None:
        """Port 0: one port for all, which `port` names."""
        with system.both_ways(version, [GROUP[version]], "eth0 eth1", port=0) as sock:
            sock.sendto(b"", (GROUP[version], PORT))
            assert sock.port > 0
            assert {sent.source[1] for sent in system.kernel.wire} == {sock.port}


class TestOwnEcho:
    """What it sent does not come back."""

    def test_own_and_others(self, system: System, version: int) -> None:
        """A second socket on the port hears it, it does not; with own=True it does."""
        loud = {"enable_external_loopback": True}
        with (
            system.both_ways(version, [GROUP[version]], **loud) as sock,
            system.both_ways(version, [GROUP[version]], unicast=False, own=True, **loud) as other,
        ):
            sock.sendto(b"sock", (GROUP[version], PORT))
            other.sendto(b"other", (GROUP[version], PORT))
            assert heard(sock) == [b"other"]
            assert sorted(heard(other)) == [b"other", b"sock"]


class TestLifetime:
    """Opening and closing."""

    def test_nothing_is_left(self, system: System, version: int) -> None:
        """Every socket is closed, on a second close nothing happens, and it can be opened again."""
        sock = system.both_ways(version, [GROUP[version]], "eth0 eth1")
        for _ in range(2):
            sock.open()
            sock.sendto(b"", (GROUP[version], PORT))
            sock.close()
            sock.close()
            assert system.kernel.open_sockets() == []

    @pytest.mark.parametrize("step", ["socket", "bind"])
    def test_a_refused_step(self, system: System, version: int, step: str) -> None:
        """Whichever socket the system refuses, the others are closed again."""
        with system.both_ways(version, [GROUP[version]], "eth0 eth1"):
            opened = len(system.kernel.open_sockets())
        for number in range(opened):
            sock = system.both_ways(version, [GROUP[version]], "eth0 eth1")
            system.kernel.fail(step, system.number("ENOBUFS"), nth=number + 1)
            with pytest.raises(MulticastOSError, match="Cannot"):
                sock.open()
            assert system.kernel.open_sockets() == []

    def test_a_reply_later(self, system: System, version: int) -> None:
        """A datagram that a program stored and made anew is replied to as well."""
        with system.both_ways(version, [GROUP[version]]) as sock:
            system.arrive(GROUP[version], b"question")
            question = sock.receive()
            stored = Datagram(*(getattr(question, name) for name in Datagram.__match_args__))
            sock.reply(stored, b"reply")
            assert system.kernel.wire[-1].destination[0] == PEER[version]
