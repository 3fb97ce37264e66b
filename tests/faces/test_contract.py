"""What every receiver does, blocking or async: one set of claims for all faces."""

import contextlib
import copy
import errno
import gc
import math
import pickle
import warnings
from time import monotonic, time_ns
from typing import Any

import pytest

from faces.faces import Face
from faces.network import GROUP, OTHER_GROUP, PORT, SECOND_SOURCE, Network, family, watched_descriptors
from linux.plain_sockets import all_closed, open_descriptors
from multicast_expert import Datagram, DatagramBuffer, MulticastExpertError, NotOpenError


def receiver_of(face: Face, version: int, *groups: str, **keywords: Any) -> Any:
    """A receiver on eth0 that waits ten seconds, unless told otherwise."""
    keywords = {"iface": "eth0", "timeout": 10, **keywords}
    return face.receiver(family(version), groups or [GROUP[version]], PORT, **keywords)


class TestReceiving:
    async def test_a_datagram_with_all_that_is_known(self, face: Face, network: Network, version: int) -> None:
        """`receive` tells payload, sender, group, interface by index and name, and hop limit."""
        async with receiver_of(face, version) as receiver:
            with network.sender(version, hops=7) as sender:
                before = sender.getsockname()
                sender.sendto(b"payload", (GROUP[version], PORT))
                datagram = await receiver.receive()
        assert isinstance(datagram, Datagram)
        assert datagram == Datagram(
            b"payload", before, GROUP[version], network.near[0].index(), "eth0", 7, None, False
        )  # fmt: skip

    async def test_two_groups_on_two_interfaces(self, face: Face, network: Network, version: int) -> None:
        """One receiver on two groups and two interfaces: group, interface, sender and hop limit are right each time."""
        places = [(group, cable) for group in (GROUP[version], OTHER_GROUP[version]) for cable in range(2)]
        groups = [GROUP[version], OTHER_GROUP[version]]
        async with receiver_of(face, version, *groups, iface=None, ifaces=["eth0", "eth1"]) as receiver:
            for round_number in range(3):
                for group, cable in places:
                    network.send(f"{group} {cable}".encode(), group, cable=cable, hops=round_number + 1)
                received = [await receiver.receive() for _ in places]
                assert sorted(datagram.data.decode() for datagram in received) == sorted(f"{g} {c}" for g, c in places)
                for datagram in received:
                    group, _, cable = datagram.data.decode().partition(" ")
                    near = network.near[int(cable)]
                    assert datagram.group == group
                    assert (datagram.interface_index, datagram.interface_name) == (near.index(), near.name)
                    assert datagram.sender[0] == network.source(version, int(cable))
                    assert datagram.hop_limit == round_number + 1
            with pytest.raises(TimeoutError):
                await receiver.receive(0)

    async def test_an_empty_datagram_is_a_datagram(self, face: Face, network: Network, version: int) -> None:
        """A datagram without payload arrives as one, by every method."""
        async with receiver_of(face, version) as receiver:
            for _ in range(5):
                network.send(b"", GROUP[version])
            assert (await receiver.receive()).data == b""
            received = await receiver.recvfrom()
            assert received[0] == b""
            assert received[1][0] == network.source(version)
            assert await receiver.recv() == b""
            assert [datagram.data for datagram in await receiver.receive_many()] == [b"", b""]
            assert receiver.stats()[:2] == (5, 0)

    async def test_receive_never_cuts_and_a_small_buffer_does(self, face: Face, network: Network, version: int) -> None:
        """The largest datagram comes whole; `recvfrom` and `recv` cut at the size they are given, which is counted."""
        largest = bytes(range(256)) * 255
        async with receiver_of(face, version) as receiver:
            network.send(largest, GROUP[version])
            datagram = await receiver.receive()
            assert (datagram.data, datagram.truncated) == (largest, False)
            assert receiver.stats().truncated == 0
            for payload in (b"0123456789", b"abcdefghij", b"whole"):
                network.send(payload, GROUP[version])
            assert (await receiver.recvfrom(4))[0] == b"0123"
            assert await receiver.recv(4) == b"abcd"
            assert await receiver.recv(5) == b"whole"
            assert receiver.stats().truncated == 2

    @pytest.mark.parametrize("timestamps", [False, True])
    async def test_the_time_of_arrival_is_there_when_asked_for(
        self, face: Face, network: Network, version: int, timestamps: bool
    ) -> None:
        """`timestamps=True` tells when the kernel received it, in nanoseconds since 1970; else None."""
        async with receiver_of(face, version, timestamps=timestamps) as receiver:
            for _ in range(2):
                before = time_ns()
                network.send(b"x", GROUP[version])
                stamp = (await receiver.receive()).timestamp_ns
                if timestamps:
                    # The clock of the stamp may be read a little coarser than ours.
                    assert before - 20_000_000 <= stamp <= time_ns() + 20_000_000
                else:
                    assert stamp is None

    async def test_the_traffic_class_is_there_when_asked_for(self, face: Face, network: Network, version: int) -> None:
        """`traffic_class=True` tells it, from the next datagram on also where the sender changes its `dscp`."""
        with network.far[0].node.entered():
            transmitter = face.transmitter(family(version), [GROUP[version]], "eth0", dscp=46).open()
        buffer = DatagramBuffer(10, 1 << 16)
        async with (
            receiver_of(face, version, traffic_class=True) as receiver,
            receiver_of(face, version, traffic_class=True) as into,
            receiver_of(face, version) as other,
        ):
            try:
                await transmitter.sendto(b"x", (GROUP[version], PORT))
                transmitter.dscp = 10
                assert await transmitter.send_many([b"x", b"x"], (GROUP[version], PORT)) == 2
                with pytest.raises(MulticastExpertError, match="dscp 64"):
                    transmitter.dscp = 64
            finally:
                transmitter.close()
            assert [(await receiver.receive()).traffic_class for _ in range(3)] == [46 << 2, 10 << 2, 10 << 2]
            assert [(await other.receive()).traffic_class for _ in range(3)] == [None] * 3
            while len(buffer) < 3:
                await into.receive_into(buffer)
        assert [buffer.origins[each].traffic_class for each in buffer.sources] == [46 << 2, 10 << 2, 10 << 2]
        assert buffer[2].traffic_class == 10 << 2

    async def test_the_hop_limit_as_it_was_sent(self, face: Face, network: Network, version: int) -> None:
        """`ttl=` for all datagrams and `hop_limit=` for one arrive as given, and the one leaves the others alone."""
        with network.far[0].node.entered():
            transmitter = face.transmitter(family(version), [GROUP[version]], "eth0", ttl=9).open()
        async with receiver_of(face, version) as receiver:
            try:
                for hop_limit in (None, 33, None, 255, 1):
                    await transmitter.sendto(b"x", (GROUP[version], PORT), hop_limit=hop_limit)
                assert await transmitter.send_many([b"x", b"x"], (GROUP[version], PORT), hop_limit=64) == 2
                assert await transmitter.send_many([b"x"], (GROUP[version], PORT)) == 1
                with pytest.raises(MulticastExpertError, match="out of range"):
                    await transmitter.sendto(b"x", (GROUP[version], PORT), hop_limit=256)
            finally:
                transmitter.close()
            received = [(await receiver.receive()).hop_limit for _ in range(8)]
        assert received == [9, 33, 9, 255, 1, 64, 64, 9]

    async def test_several_at_once(self, face: Face, network: Network, version: int) -> None:
        """`receive_many` returns what is there, in order, and no more than the limit; it waits for the first only."""
        async with receiver_of(face, version) as receiver:
            with network.sender(version) as sender:
                for number in range(30):
                    sender.sendto(b"%d" % number, (GROUP[version], PORT))
            assert [int(datagram.data) for datagram in await receiver.receive_many(8)] == list(range(8))
            assert [int(datagram.data) for datagram in await receiver.receive_many()] == list(range(8, 30))
            with pytest.raises(TimeoutError):
                await receiver.receive_many(timeout=0)

    async def test_iteration_ends_at_the_timeout(self, face: Face, network: Network, version: int) -> None:
        """Iterating yields datagrams, ends when none comes within the timeout, and can begin again."""
        async with receiver_of(face, version, timeout=0.05) as receiver:
            for _ in range(2):
                for number in range(3):
                    network.send(b"%d" % number, GROUP[version])
                assert [datagram.data async for datagram in receiver] == [b"0", b"1", b"2"]

    async def test_what_comes_while_it_waits(self, face: Face, network: Network, version: int) -> None:
        """A receive that waits already returns as soon as a datagram comes."""
        async with receiver_of(face, version, timeout=None) as receiver:
            methods = [receiver.receive, receiver.recv, receiver.recvfrom, receiver.receive_many]
            for method in methods:
                async with face.beside(method) as waiting:
                    network.send(b"x", GROUP[version])
                    (outcome,) = await waiting.outcomes()
                first = outcome[0] if isinstance(outcome, tuple | list) else outcome
                assert first == b"x" or first.data == b"x"


class TestTimeouts:
    async def test_nothing_within_the_timeout(self, face: Face, network: Network, version: int) -> None:
        """`receive` and `receive_many` raise TimeoutError, `recvfrom` and `recv` too; the blocking ones return None."""
        async with receiver_of(face, version, timeout=0.02) as receiver:
            for method in (receiver.receive, receiver.receive_many):
                with pytest.raises(TimeoutError, match=r"within 0\.02 s\. If something should have come, explain\(\)"):
                    await method()
            for method in (receiver.recvfrom, receiver.recv):
                if face.backend is None:
                    assert await method() is None
                else:
                    with pytest.raises(TimeoutError):
                        await method()

    async def test_how_long_it_waits(self, face: Face, network: Network, version: int) -> None:
        """The timeout of one call goes before that of the receiver, which can be changed; 0 takes what is there."""
        async with receiver_of(face, version, timeout=30) as receiver:
            for seconds in (0, 0.1):
                start = monotonic()
                with pytest.raises(TimeoutError):
                    await receiver.receive(seconds)
                # The clock of uvloop counts milliseconds.
                assert seconds - 0.005 <= monotonic() - start < seconds + 2
            receiver.settimeout(0)
            network.send(b"there", GROUP[version])
            assert (await receiver.receive()).data == b"there"
            with pytest.raises(TimeoutError):
                await receiver.receive()
            network.send(b"again", GROUP[version])
            assert (await receiver.receive(timeout=None)).data == b"again"

    @pytest.mark.parametrize("timeout", [math.inf, 1e9, 3e6])
    async def test_a_very_long_timeout(self, face: Face, network: Network, version: int, timeout: float) -> None:
        """A timeout of months or for ever waits like any other."""
        async with receiver_of(face, version, timeout=timeout) as receiver:
            async with face.beside(receiver.receive) as waiting:
                network.send(b"x", GROUP[version])
                (outcome,) = await waiting.outcomes()
            assert getattr(outcome, "data", outcome) == b"x"

    @pytest.mark.parametrize("timeout", [-1, math.nan])
    async def test_timeouts_that_are_refused(self, face: Face, network: Network, version: int, timeout: float) -> None:
        """A negative timeout is an error that says so."""
        with pytest.raises(MulticastExpertError, match="timeout"):
            receiver_of(face, version, timeout=timeout)
        async with receiver_of(face, version) as receiver:
            with pytest.raises(MulticastExpertError, match="timeout"):
                receiver.settimeout(timeout)
            with pytest.raises(MulticastExpertError, match="timeout"):
                await receiver.receive(timeout)


class TestMembershipsWhileItRuns:
    async def test_join_and_leave(self, face: Face, network: Network, version: int) -> None:
        """A group that is joined later is heard from then on, and not after it was left; the first goes on."""
        async with receiver_of(face, version) as receiver:
            network.send(b"too early", OTHER_GROUP[version])
            receiver.join_group(OTHER_GROUP[version])
            network.send(b"second", OTHER_GROUP[version])
            datagram = await receiver.receive()
            assert (datagram.data, datagram.group) == (b"second", OTHER_GROUP[version])
            assert receiver.mcast_ips == [GROUP[version], OTHER_GROUP[version]]
            receiver.leave_group(OTHER_GROUP[version])
            network.send(b"too late", OTHER_GROUP[version])
            network.send(b"first", GROUP[version])
            assert (await receiver.receive()).data == b"first"
            assert receiver.mcast_ips == [GROUP[version]]

    async def test_join_on_another_interface(self, face: Face, network: Network, version: int) -> None:
        """A group can be joined on an interface that the receiver was not made for, and left there alone."""
        async with receiver_of(face, version) as receiver:
            membership = receiver.join_group(GROUP[version], iface="eth1")
            assert membership.interface.machine_name == "eth1"
            assert [iface.machine_name for iface in receiver.network_interfaces] == ["eth0", "eth1"]
            for cable in range(2):
                network.send(b"%d" % cable, GROUP[version], cable=cable)
                datagram = await receiver.receive()
                assert (datagram.data, datagram.interface_name) == (b"%d" % cable, f"eth{cable}")
            receiver.leave_group(GROUP[version], iface="eth1")
            network.send(b"too late", GROUP[version], cable=1)
            network.send(b"stays", GROUP[version])
            assert (await receiver.receive()).data == b"stays"

    async def test_a_join_is_heard_by_who_waits_already(self, face: Face, network: Network, version: int) -> None:
        """A receive that waits already hears a group that is joined meanwhile, at once."""
        async with receiver_of(face, version, timeout=None) as receiver:
            async with face.beside(receiver.receive) as waiting:
                receiver.join_group(OTHER_GROUP[version])
                network.send(b"x", OTHER_GROUP[version])
                (outcome,) = await waiting.outcomes()
            assert getattr(outcome, "data", outcome) == b"x"

    async def test_who_waits_already_goes_on_after_a_leave(self, face: Face, network: Network, version: int) -> None:
        """A receive that waits already is not disturbed by other groups that are left and joined again."""
        async with receiver_of(face, version, GROUP[version], OTHER_GROUP[version], timeout=None) as receiver:
            async with face.beside(receiver.receive) as waiting:
                receiver.leave_group(OTHER_GROUP[version])
                receiver.join_group(OTHER_GROUP[version])
                receiver.leave_group(OTHER_GROUP[version])
                network.send(b"x", GROUP[version])
                (outcome,) = await waiting.outcomes()
            assert getattr(outcome, "data", outcome) == b"x"
            async with face.beside(receiver.receive) as waiting:
                receiver.join_group(OTHER_GROUP[version])
                network.send(b"y", OTHER_GROUP[version])
                (outcome,) = await waiting.outcomes()
            assert getattr(outcome, "data", outcome) == b"y"

    async def test_sources_come_and_go(self, face: Face, network: Network, version: int) -> None:
        """With a source named, only its datagrams come; a second one is added and the first removed while it runs."""
        first, second = network.source(version), SECOND_SOURCE[version]

        async def heard(receiver: Any) -> set[str]:
            for source in (first, second):
                network.send(b"x", GROUP[version], source=source)
            # What was heard stands before the marker in the one socket of the other group.
            received = set()
            with contextlib.suppress(TimeoutError):
                while True:
                    received.add((await receiver.receive(0.02)).sender[0])
            return received

        async with receiver_of(face, version, source_ips=[first]) as receiver:
            assert await heard(receiver) == {first}
            added = receiver.join_group(GROUP[version], source=second)
            assert (added.group, added.source) == (GROUP[version], second)
            assert await heard(receiver) == {first, second}
            receiver.leave_group(GROUP[version], source=first)
            assert await heard(receiver) == {second}
            added.leave()
            assert await heard(receiver) == set()
            assert receiver.memberships == []
            receiver.join_group(GROUP[version])
            receiver.block_source(GROUP[version], second)
            assert await heard(receiver) == {first}
            receiver.unblock_source(GROUP[version], second)
            assert await heard(receiver) == {first, second}
            receiver.block_source(GROUP[version], second)
            assert await heard(receiver) == {first}

    async def test_sources_differ_by_interface(self, face: Face, network: Network, version: int) -> None:
        """One group may be wanted from different sources on each interface, each filter for itself."""
        async with receiver_of(face, version, OTHER_GROUP[version]) as receiver:
            receiver.join_group(GROUP[version], source=network.source(version, 0), iface="eth0")
            receiver.join_group(GROUP[version], source=network.source(version, 1), iface="eth1")
            network.send(b"unwanted", GROUP[version], source=SECOND_SOURCE[version])
            for cable in range(2):
                network.send(b"%d" % cable, GROUP[version], cable=cable)
            received = sorted([await receiver.receive(), await receiver.receive()], key=lambda each: each.data)
            assert [(each.data, each.interface_name) for each in received] == [(b"0", "eth0"), (b"1", "eth1")]
            with pytest.raises(TimeoutError):
                await receiver.receive(0)

    async def test_membership_handles(self, face: Face, network: Network, version: int) -> None:
        """A Membership knows its group, source and interface; it blocks, unblocks and leaves, once."""
        async with receiver_of(face, version) as receiver:
            membership = receiver.join_group(OTHER_GROUP[version])
            assert (membership.group, membership.source) == (OTHER_GROUP[version], None)
            assert membership.interface == membership.interfaces[0] == receiver.network_interfaces[0]
            assert OTHER_GROUP[version] in repr(membership)
            membership.block(network.source(version))
            network.send(b"blocked", OTHER_GROUP[version])
            network.send(b"first", GROUP[version])
            assert (await receiver.receive()).data == b"first"
            membership.unblock(network.source(version))
            network.send(b"second", OTHER_GROUP[version])
            assert (await receiver.receive()).data == b"second"
            membership.leave()
            for again in (membership.leave, lambda: membership.block(network.source(version))):
                with pytest.raises(MulticastExpertError, match="not joined"):
                    again()

    async def test_the_list_of_memberships(self, face: Face, network: Network, version: int) -> None:
        """`memberships` has one for each group, source and interface, and they can be left from there."""
        groups = [GROUP[version], OTHER_GROUP[version]]
        async with receiver_of(face, version, *groups, iface=None, ifaces=["eth0", "eth1"]) as receiver:
            listed = [(each.group, each.source, each.interface.machine_name) for each in receiver.memberships]
            assert sorted(listed) == sorted((group, None, name) for group in groups for name in ("eth0", "eth1"))
            for membership in receiver.memberships[1:]:
                membership.leave()
            (last,) = receiver.memberships
            near = network.near[int(last.interface.machine_name == "eth1")]
            network.send(b"x", last.group, cable=network.near.index(near))
            assert (await receiver.receive()).interface_name == near.name


class TestOpeningAndClosing:
    async def test_open_and_close(self, face: Face, network: Network, version: int) -> None:
        """`open()` and `close()` do what a with block does; the receiver can be opened again and hears the same."""
        receiver = receiver_of(face, version)
        for _ in range(2):
            assert receiver.open() is not None
            assert receiver.is_opened
            network.send(b"x", GROUP[version])
            assert (await receiver.receive()).data == b"x"
            receiver.close()
            assert not receiver.is_opened
        with pytest.raises(MulticastExpertError, match="not open any more: it was closed"):
            receiver.close()
        with receiver, pytest.raises(MulticastExpertError, match="already"):
            receiver.open()
        # As another thread may, to end a receive.
        with receiver:
            receiver.close()
        assert not receiver.is_opened

    async def test_an_open_receiver_is_not_copied(self, face: Face, network: Network, version: int) -> None:
        """A copy that is forgotten would close the descriptors of both; one that is not open may be copied."""
        receiver = receiver_of(face, version)
        wrapped = getattr(receiver, "_socket", receiver)
        async with receiver:
            for duplicate in (copy.copy, copy.deepcopy, pickle.dumps):
                with pytest.raises(TypeError, match=f"cannot copy or pickle an open {type(wrapped).__name__}"):
                    duplicate(wrapped)
            gc.collect()
            network.send(b"x", GROUP[version])
            assert (await receiver.receive()).data == b"x"

    async def test_what_was_joined_at_run_time_is_joined_again(
        self, face: Face, network: Network, version: int
    ) -> None:
        """A receiver that is opened again has the memberships and blocked sources that it had when it was closed."""
        async with receiver_of(face, version) as receiver:
            receiver.join_group(OTHER_GROUP[version])
            receiver.block_source(GROUP[version], SECOND_SOURCE[version])
        async with receiver:
            network.send(b"blocked", GROUP[version], source=SECOND_SOURCE[version])
            network.send(b"x", OTHER_GROUP[version])
            assert (await receiver.receive()).data == b"x"
            with pytest.raises(TimeoutError):
                await receiver.receive(0)

    async def test_nothing_works_on_a_closed_receiver(self, face: Face, network: Network, version: int) -> None:
        """Every method of a receiver that is not open says so, as an OSError with EBADF too."""
        receiver = receiver_of(face, version)
        for method in (receiver.receive, receiver.recv, receiver.recvfrom, receiver.receive_many):
            with pytest.raises(MulticastExpertError, match="not open") as refused:
                await method()
            assert isinstance(refused.value, OSError)
            assert refused.value.errno == errno.EBADF
        changes = (
            lambda: receiver.join_group(OTHER_GROUP[version]),
            lambda: receiver.leave_group(GROUP[version]),
            lambda: receiver.block_source(GROUP[version], SECOND_SOURCE[version]),
            *(each.leave for each in receiver.memberships),
            receiver.close,
            receiver.stats,
            receiver.filenos,
            lambda: receiver.receive_buffer,
        )
        for change in changes:
            with pytest.raises(MulticastExpertError, match="not open") as refused:
                change()
            assert isinstance(refused.value, OSError)
            assert refused.value.errno == errno.EBADF

    async def test_closing_wakes_who_waits(self, face: Face, network: Network, version: int) -> None:
        """Everyone who waits when it is closed gets a NotOpenError, promptly; nothing is left behind."""
        left: tuple[int, int] | None = None
        for method in ("receive", "recv", "recvfrom", "receive_many", "__aiter__"):
            receiver = receiver_of(face, version, timeout=None).open()

            async def wait(receiver: Any = receiver, method: str = method) -> Any:
                if method == "__aiter__":
                    return [datagram async for datagram in receiver]
                return await getattr(receiver, method)()

            async with face.beside(wait, wait, wait) as waiting:
                start = monotonic()
                receiver.close()
                outcomes = await waiting.outcomes()
                assert monotonic() - start < 1
            assert [type(outcome) for outcome in outcomes] == [NotOpenError] * 3
            # A loop keeps some of its own from the first wait on.
            left = left or (open_descriptors(), watched_descriptors())
            all_closed(left[0])
            assert watched_descriptors() <= left[1]

    async def test_a_wait_leaves_nothing_behind(self, face: Face, network: Network, version: int) -> None:
        """After receives that waited, timed out or were served, nothing watches the sockets any longer."""
        async with receiver_of(face, version, OTHER_GROUP[version], timeout=0.01) as receiver:
            with pytest.raises(TimeoutError):
                await receiver.receive()
            before = open_descriptors(), watched_descriptors()
            for _ in range(5):
                with pytest.raises(TimeoutError):
                    await receiver.receive()
                network.send(b"x", OTHER_GROUP[version])
                assert (await receiver.receive(10)).data == b"x"
            all_closed(before[0])
            assert watched_descriptors() <= before[1]

    async def test_a_forgotten_close_is_a_resource_warning(self, face: Face, network: Network, version: int) -> None:
        """An open receiver or transmitter that nobody holds any longer warns, and is closed."""
        before = open_descriptors()
        for make in (
            lambda: receiver_of(face, version),
            lambda: face.transmitter(family(version), [GROUP[version]], "eth0"),
        ):
            forgotten = make().open()
            with warnings.catch_warnings(record=True) as caught:
                warnings.simplefilter("always")
                del forgotten
                gc.collect()
            assert [each.category for each in caught] == [ResourceWarning]
            assert "unclosed" in str(caught[0].message)
        all_closed(before)
