"""A transmitter sends out of its interface, from its address, with its hop limit, on every system alike."""

from ipaddress import ip_address

import pytest

from engines.systems import GROUP, OTHER, PEER, PORT, System, heard
from multicast_expert import MulticastExpertError, MulticastOSError


class TestSending:
    """What leaves the host."""

    @pytest.mark.parametrize("interface", ["eth0", "eth1"])
    def test_interface_and_source(self, system: System, version: int, interface: str) -> None:
        """Out of the named interface, whichever is the default one, from an address of it and the socket's port."""
        with system.transmitter([GROUP[version]], interface) as transmitter:
            transmitter.sendto(b"x", (GROUP[version], PORT))
            port = transmitter.getsockname()[1]
        (sent,) = system.kernel.wire
        own = [one.ip for one in system.interface(interface).addresses(version)]
        assert sent.link == {"eth0": "lan0", "eth1": "lan1"}[interface]
        assert ip_address(sent.source[0]).packed in [address.packed for address in own]
        assert sent.source[1] == port
        assert sent.destination == (GROUP[version], PORT)

    @pytest.mark.parametrize("hops", [1, 2, 255])
    def test_hop_limit(self, system: System, version: int, hops: int) -> None:
        """As asked for; 1 when nothing was."""
        options = {} if hops == 1 else {"ttl": hops}
        with system.transmitter([GROUP[version]], **options) as transmitter:
            transmitter.sendto(b"x", (GROUP[version], PORT))
        assert [sent.hop_limit for sent in system.kernel.wire] == [hops]

    def test_no_hop_stays_on_the_host(self, system: System, version: int) -> None:
        """A hop limit of 0 sends nothing out."""
        with system.transmitter([GROUP[version]], ttl=0) as transmitter:
            transmitter.sendto(b"x", (GROUP[version], PORT))
        assert system.kernel.wire == []

    def test_from_host_to_host(self, system: System, version: int) -> None:
        """What one host sends, a receiver on another one gets, with the sender's address."""
        with system.receiver([GROUP[version]], "eth1") as receiver:
            system.boot("b")
            with system.transmitter([GROUP[version]], "eth1", host="b") as transmitter:
                transmitter.sendto(b"over the wire", (GROUP[version], PORT))
            received = receiver.recvfrom()
        assert received is not None
        assert received[0] == b"over the wire"
        assert received[1][0].partition("%")[0] in ("10.1.0.2", "fd01::2", "fe80::1:2")

    def test_link_local_group_without_a_scope(self, system: System) -> None:
        """ff02:: goes out of the socket's interface; the pair form of the address is enough."""
        with system.transmitter(["ff02::199"], "eth1") as transmitter:
            transmitter.sendto(b"x", ("ff02::199", PORT))
            transmitter.sendto(b"x", ("ff02::199", PORT, 0, 3))
        assert [sent.link for sent in system.kernel.wire] == ["lan1", "lan1"]

    def test_only_its_groups(self, system: System, version: int) -> None:
        """Other groups are refused; other spellings of its own are not."""
        with system.transmitter([GROUP[version]]) as transmitter:
            with pytest.raises(MulticastExpertError, match="none of the groups"):
                transmitter.sendto(b"x", (OTHER[version], PORT))
            with pytest.raises(MulticastExpertError, match="is not a multicast address"):
                transmitter.sendto(b"x", (PEER[version], PORT))
            if version == 6:
                transmitter.sendto(b"x", ("FF15:0::1234", PORT))
        assert len(system.kernel.wire) == (version == 6)

    def test_several_interfaces(self, system: System, version: int) -> None:
        """ifaces= sends on each of them."""
        from multicast_expert import McastTxSocket

        ifaces = [system.interface("eth0"), system.interface("eth1")]
        with McastTxSocket(2 if version == 4 else 10, [GROUP[version]], ifaces=ifaces, heal=False) as transmitter:
            transmitter.sendto(b"x", (GROUP[version], PORT))
        assert [sent.link for sent in system.kernel.wire] == ["lan0", "lan1"]


class TestRefusals:
    """What the system refuses is said, and only the one known quirk is passed over."""

    def test_nobody_listens_on_loopback(self, system: System, version: int) -> None:
        """Windows calls that "network unreachable" (10051); a datagram that nobody hears is no error."""
        with system.transmitter([GROUP[version]], "lo") as transmitter:
            transmitter.sendto(b"x", (GROUP[version], PORT))
        assert system.kernel.wire == []

    def test_no_route_elsewhere(self, system: System, version: int) -> None:
        """On any other interface the same error is real."""
        with system.transmitter([GROUP[version]]) as transmitter:
            system.kernel.fail("sendto", system.number("ENETUNREACH"))
            with pytest.raises(MulticastOSError, match="no route for") as caught:
                transmitter.sendto(b"x", (GROUP[version], PORT))
        assert caught.value.errno == system.errno("ENETUNREACH")

    @pytest.mark.parametrize("interface", ["lo", "eth0"])
    @pytest.mark.parametrize("error", ["ENOBUFS", "EACCES", 5, 10107])
    def test_every_other_error(self, system: System, version: int, interface: str, error: str | int) -> None:
        """Known to the tables or not, it is raised and keeps the number of the system."""
        number = system.number(error) if isinstance(error, str) else error
        with system.transmitter([GROUP[version]], interface) as transmitter:
            system.kernel.fail("sendto", number)
            with pytest.raises(MulticastOSError, match="Cannot send 1 bytes to") as caught:
                transmitter.sendto(b"x", (GROUP[version], PORT))
        assert caught.value.errno == system.errno(number)
        assert caught.value.step == "send"

    def test_too_long(self, system: System, version: int) -> None:
        """More than the system takes at once: the text says what to do."""
        with system.transmitter([GROUP[version]]) as transmitter:
            with pytest.raises(MulticastOSError, match="Send it in pieces") as caught:
                transmitter.sendto(bytes(65528), (GROUP[version], PORT))
        assert caught.value.errno == system.errno("EMSGSIZE")

    def test_sending_goes_on_after_an_error(self, system: System, version: int) -> None:
        """A refused datagram does not close the socket."""
        with system.receiver([GROUP[version]], enable_external_loopback=True) as receiver:
            with system.transmitter([GROUP[version]], enable_external_loopback=True) as transmitter:
                system.kernel.fail("sendto", system.number("ENOBUFS"))
                with pytest.raises(MulticastOSError, match="queue of eth0 is full"):
                    transmitter.sendto(b"1", (GROUP[version], PORT))
                transmitter.sendto(b"2", (GROUP[version], PORT))
            assert heard(receiver) == [b"2"]

    def test_waiting_for_room(self, system: System, version: int) -> None:
        """A full buffer is waited for, and the datagram is sent once."""
        would_block = 10035 if system.is_windows else 35
        with system.transmitter([GROUP[version]]) as transmitter:
            system.kernel.fail("sendto", would_block, times=3)
            transmitter.sendto(b"x", (GROUP[version], PORT))
        assert [sent.data for sent in system.kernel.wire] == [b"x"]


class TestMany:
    """`send_many` sends what as many calls of `sendto` would."""

    def test_all_kinds_of_payloads(self, system: System, version: int) -> None:
        """Each is one datagram, also where several interfaces send it."""
        from multicast_expert import McastTxSocket

        payloads = [b"1", b"", b"22", b"22", b"22", b"22", b"22", b"3"]
        ifaces = [system.interface("eth0"), system.interface("eth1")]
        with McastTxSocket(2 if version == 4 else 10, [GROUP[version]], ifaces=ifaces, heal=False) as transmitter:
            assert transmitter.send_many((bytearray(each) for each in payloads), (GROUP[version], PORT)) == 8
        for link in ("lan0", "lan1"):
            assert [sent.data for sent in system.kernel.wire if sent.link == link] == payloads

    def test_a_refusal_in_the_middle(self, system: System, version: int) -> None:
        """Fewer than given went; where it is the first one, the error is raised."""
        payloads = [b"1", b"2", bytes(65528), b"4"]
        with system.transmitter([GROUP[version]]) as transmitter:
            assert transmitter.send_many(payloads, (GROUP[version], PORT)) == 2
            with pytest.raises(MulticastOSError, match="Cannot send 65528 bytes") as caught:
                transmitter.send_many(payloads[2:], (GROUP[version], PORT))
        assert caught.value.errno == system.errno("EMSGSIZE")
        assert [sent.data for sent in system.kernel.wire] == [b"1", b"2"]

    def test_waiting_for_room(self, system: System, version: int) -> None:
        """A full buffer is waited for, and each datagram is sent once."""
        would_block = 10035 if system.is_windows else 35
        payloads = [b"%d" % number for number in range(9)]
        with system.transmitter([GROUP[version]]) as transmitter:
            system.kernel.fail("sendto", would_block, times=3)
            assert transmitter.send_many(payloads, (GROUP[version], PORT)) == 9
        assert [sent.data for sent in system.kernel.wire] == payloads

    def test_nobody_listens_on_loopback(self, system: System, version: int) -> None:
        """That is no error for many either: all count as sent."""
        with system.transmitter([GROUP[version]], "lo") as transmitter:
            assert transmitter.send_many([b"1", b"2", b"3"], (GROUP[version], PORT)) == 3
        assert system.kernel.wire == []

    def test_hop_limit(self, system: System, version: int) -> None:
        """It is that of the call, for all of them."""
        with system.transmitter([GROUP[version]]) as transmitter:
            assert transmitter.send_many([b"1", b"2"], (GROUP[version], PORT), hop_limit=9) == 2
            assert transmitter.send_many([b"3"], (GROUP[version], PORT)) == 1
        assert [sent.hop_limit for sent in system.kernel.wire] == [9, 9, 1]
