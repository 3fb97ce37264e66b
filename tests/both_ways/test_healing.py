"""An interface goes and comes back: it is joined, heard by unicast and sent on again, from the same port."""

import contextlib
import errno
import gc
import os
import signal
import threading
from collections.abc import Callable, Iterator
from time import monotonic, sleep
from typing import Any

import pytest

from faces.faces import is_waiting, wait_until
from linux.plain_sockets import (
    FAMILY,
    all_closed,
    any_address,
    descriptors_left,
    join,
    open_descriptors,
    own_address,
    udp_socket,
)
from multicast_expert import HealingEvent, McastSocket, MulticastExpertError, MulticastOSError
from multicast_expert.core.interfaces import InterfaceChoice
from multicast_expert.sockets.outlet import Outlet
from multicast_expert.testing import Host, Interface, Lab, lab_unavailable
from network.faults import FAULTS, delete_and_recreate, leave_bridge, move_address, report_ports_as
from network.watching import end_watches

PORT = 5000
GROUP = {4: "239.1.2.3", 6: "ff15::1:2:3"}
PREFIXES = ("fd01", "fd01:1")
PATIENCE = 10.0


@pytest.fixture
def cables() -> Iterator[list[tuple[Interface, Interface]]]:
    """Two cables of a near and a far host; the test runs in the near one.

    What earlier tests left is ended first, so that it confuses no count of descriptors.
    """
    gc.collect()
    end_watches()
    reason = lab_unavailable()
    if reason is not None:
        pytest.skip(f"no multicast lab: {reason}")
    with Lab() as lab:
        near, far = lab.host("near"), lab.host("far")
        made = [
            lab.link(
                near,
                far,
                interface=f"eth{number}",
                ipv4=(f"10.1.{number}.1/24", f"10.1.{number}.2/24"),
                ipv6=(f"{PREFIXES[number]}::1/64", f"{PREFIXES[number]}::2/64"),
            )
            for number in range(2)
        ]
        with near.entered():
            yield made


def into_a_bridge(host: Host) -> None:
    """It becomes a port of a bridge, which takes its addresses."""
    host.put_into_bridge("eth0")


def into_a_bridge_and_back(host: Host) -> None:
    """The same, and it leaves the bridge again."""
    host.put_into_bridge("eth0")
    leave_bridge(host)


ALL_FAULTS = (*FAULTS, into_a_bridge, into_a_bridge_and_back)


def exchange(sock: McastSocket, far: Interface, address: Callable[[], str], version: int) -> None:
    """Both ways, by group and by unicast: retried until all four arrive, or the patience is over."""
    deadline = monotonic() + PATIENCE
    with udp_socket(far.node, version, (any_address(version), PORT)) as other:
        join(other, GROUP[version], far.index())
        if version == 4:
            other.setsockopt(0, 32, bytes(8) + far.index().to_bytes(4, "little"))
        else:
            other.setsockopt(41, 17, far.index())
        other.settimeout(0.05)
        missing = {"group out", "host out", "group in", "host in"}
        while missing:
            assert monotonic() < deadline, f"never came: {missing}"
            with contextlib.suppress(MulticastExpertError):
                sock.sendto(b"group out", (GROUP[version], PORT), iface=sock.network_interfaces[0])
            with contextlib.suppress(MulticastExpertError):
                sock.sendto(b"host out", (own_address(far, version), PORT))
            with contextlib.suppress(OSError):
                other.sendto(b"group in", (GROUP[version], PORT))
                other.sendto(b"host in", (address(), PORT))
            with contextlib.suppress(TimeoutError):
                while True:
                    data, sender = other.recvfrom(99)
                    if data.endswith(b"out"):
                        assert sender[1] == PORT
                        missing.discard(data.decode())
            with contextlib.suppress(TimeoutError):
                missing -= {each.data.decode() for each in sock.receive_many(timeout=0)}


@pytest.mark.parametrize("version", [4, 6], ids=["IPv4", "IPv6"])
@pytest.mark.parametrize("fault", ALL_FAULTS, ids=lambda fault: fault.__name__)
def test_both_ways_again(
    cables: list[tuple[Interface, Interface]], fault: Callable[[Host], None], version: int
) -> None:
    """After the fault all four ways work again, with the same port, and on the other interface all the time."""
    near, far = cables[0]
    host = near.node
    assert isinstance(host, Host)
    with McastSocket(FAMILY[version], [GROUP[version]], PORT, ifaces=["eth0", "eth1"]) as sock:
        exchange(sock, far, lambda: own_address(near, version), version)
        before = open_descriptors()
        fault(host)
        exchange(sock, far, lambda: own_address(near, version), version)
        exchange_on_the_other(sock, cables[1], version)
        all_closed(before)


@pytest.mark.parametrize("version", [4, 6], ids=["IPv4", "IPv6"])
@pytest.mark.parametrize("kind", ["bond", "team"])
def test_into_a_bond(
    cables: list[tuple[Interface, Interface]], kind: str, version: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A port of a bond or a team counts like that of a bridge: all four ways go by its master."""
    report_ports_as(monkeypatch, kind)
    near, far = cables[0]
    host = near.node
    assert isinstance(host, Host)
    with McastSocket(FAMILY[version], [GROUP[version]], PORT, ifaces=["eth0", "eth1"]) as sock:
        host.put_into_bridge("eth0", "bond0")
        exchange(sock, far, lambda: own_address(near, version), version)
        assert sock.network_interfaces[0].machine_name == "bond0"
        exchange_on_the_other(sock, cables[1], version)


@pytest.mark.parametrize("version", [4, 6], ids=["IPv4", "IPv6"])
def test_its_address_moves(cables: list[tuple[Interface, Interface]], version: int) -> None:
    """A socket by address is where the address is: on eth1, in all four ways."""
    (near, far), (other_near, other_far) = cables
    host = near.node
    assert isinstance(host, Host)
    with McastSocket(FAMILY[version], [GROUP[version]], PORT, iface=own_address(near, version)) as sock:
        exchange(sock, far, lambda: own_address(near, version), version)
        prefix = 24 if version == 4 else 64
        move_address(host, f"{own_address(near, version)}/{prefix}", "eth0", "eth1")
        wait_until(lambda: [each.machine_name for each in sock.network_interfaces] == ["eth1"], "it has moved")
        exchange(sock, other_far, lambda: own_address(other_near, version), version)


def exchange_on_the_other(sock: McastSocket, cable: tuple[Interface, Interface], version: int) -> None:
    """The neighbour works as before."""
    near, far = cable
    with udp_socket(far.node, version, (own_address(far, version), 0)) as other:
        other.sendto(b"hello", (own_address(near, version), PORT))
        while sock.receive(timeout=PATIENCE).data != b"hello":
            pass


@pytest.mark.parametrize("version", [4, 6], ids=["IPv4", "IPv6"])
@pytest.mark.parametrize("named", [True, False], ids=["allow_missing", "all interfaces"])
def test_an_interface_that_comes_later(cables: list[tuple[Interface, Interface]], named: bool, version: int) -> None:
    """It is received on and sent on as soon as it is there, with an event."""
    near = cables[0][0]
    host = near.node
    assert isinstance(host, Host)
    host.remove_interface("eth0")
    events: list[HealingEvent] = []
    options: dict[str, Any] = {"ifaces": ["eth0"], "allow_missing": True} if named else {}
    with McastSocket(FAMILY[version], [GROUP[version]], PORT, on_event=events.append, **options) as sock:
        now = host.recreate_interface("eth0")
        deadline = monotonic() + PATIENCE
        while now.name not in [iface.machine_name for iface in sock.network_interfaces]:
            assert monotonic() < deadline
            sleep(0.01)
        with contextlib.ExitStack() as opened:
            judge = opened.enter_context(udp_socket(now.peer.node, version, (any_address(version), PORT)))
            join(judge, GROUP[version], now.peer.index())
            judge.settimeout(0.05)
            while True:
                assert monotonic() < deadline
                with contextlib.suppress(MulticastExpertError, TimeoutError):
                    sock.sendto(b"hello", (GROUP[version], PORT), iface="eth0")
                    assert judge.recvfrom(99)[1][1] == PORT
                    break
            while True:
                assert monotonic() < deadline
                judge.sendto(b"unicast", (own_address(near, version), PORT))
                with contextlib.suppress(TimeoutError):
                    assert sock.receive(timeout=0.05).data == b"unicast"
                    break
        wait_until(lambda: any(event.kind == "joined" for event in events), "the event")


@pytest.mark.parametrize("version", [4, 6], ids=["IPv4", "IPv6"])
def test_what_it_sends_after_healing_is_its_own(cables: list[tuple[Interface, Interface]], version: int) -> None:
    """The sockets that replaced the old ones are recognised as well."""
    near, far = cables[0]
    host = near.node
    assert isinstance(host, Host)
    with (
        McastSocket(FAMILY[version], [GROUP[version]], PORT, iface="eth0") as sock,
        McastSocket(FAMILY[version], [GROUP[version]], PORT, iface="eth0", unicast=False) as other,
    ):
        delete_and_recreate(host)
        exchange(sock, far, lambda: own_address(near, version), version)
        heard = False
        deadline = monotonic() + PATIENCE
        while not heard:
            assert monotonic() < deadline
            sock.sendto(b"own", (GROUP[version], PORT))
            with contextlib.suppress(TimeoutError):
                heard = other.receive(timeout=0.05).data == b"own"
        with contextlib.suppress(TimeoutError):
            while True:
                assert sock.receive(timeout=0).data != b"own"


@pytest.mark.parametrize("version", [4, 6], ids=["IPv4", "IPv6"])
def test_a_priority_that_is_set_while_a_sender_is_made(
    cables: list[tuple[Interface, Interface]], version: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The sender on a new interface has it, too."""
    with McastSocket(FAMILY[version], [GROUP[version]], PORT, "eth0") as sock:
        made = sock._equipment._new_outlet

        def make_slowly(choice: InterfaceChoice) -> Outlet:
            fresh = made(choice)
            setting.start()
            setting.join(0.2)
            return fresh

        setting = threading.Thread(target=setattr, args=(sock, "dscp", 46))
        monkeypatch.setattr(sock._equipment, "_new_outlet", make_slowly)
        sock.join_group("239.7.7.7" if version == 4 else "ff15::7", iface="eth1")
        setting.join(PATIENCE)
        level, option = (0, 1) if version == 4 else (41, 67)
        marks = [each.socket.socket.getsockopt(level, option) for each in sock._equipment.outlets.values()]
    assert marks == [46 << 2, 46 << 2]


def waiting_in(sock: McastSocket, outcomes: list[object]) -> threading.Thread:
    """A thread that waits for a datagram."""

    def receive() -> None:
        try:
            outcomes.append(sock.receive(timeout=PATIENCE))
        except MulticastExpertError as error:
            outcomes.append(error)

    thread = threading.Thread(target=receive, daemon=True)
    thread.start()
    wait_until(lambda: is_waiting(thread), "it waits")
    return thread


@pytest.mark.parametrize("version", [4, 6], ids=["IPv4", "IPv6"])
def test_closing_from_elsewhere(cables: list[tuple[Interface, Interface]], version: int) -> None:
    """Another thread closes it: who waits gets an error, and every descriptor is given back."""
    with McastSocket(FAMILY[version], [GROUP[version]], PORT, ifaces=["eth0", "eth1"]):
        before = open_descriptors()
        sock = McastSocket(FAMILY[version], [GROUP[version]], PORT + 1, ifaces=["eth0", "eth1"]).open()
        sock.fileno()
        outcomes: list[object] = []
        thread = waiting_in(sock, outcomes)
        sock.close()
        thread.join(PATIENCE)
        assert isinstance(outcomes[0], MulticastExpertError)
        all_closed(before)


def test_closing_in_a_signal_handler(cables: list[tuple[Interface, Interface]]) -> None:
    """A handler closes it while its own thread waits."""
    sock = McastSocket(FAMILY[4], [GROUP[4]], PORT, ifaces=["eth0", "eth1"]).open()
    before = signal.signal(signal.SIGUSR1, lambda *_: sock.close())
    try:
        main = threading.main_thread().ident
        assert main is not None
        timer = threading.Timer(0.1, lambda: signal.pthread_kill(main, signal.SIGUSR1))
        timer.start()
        with pytest.raises(MulticastExpertError, match=r"closed|not open"):
            sock.receive(timeout=PATIENCE)
        timer.join()
    finally:
        signal.signal(signal.SIGUSR1, before)


@pytest.mark.parametrize("version", [4, 6], ids=["IPv4", "IPv6"])
def test_the_child_of_a_fork(cables: list[tuple[Interface, Interface]], version: int) -> None:
    """The child sends, leaves and closes; the parent goes on receiving its groups and unicast, and sending."""
    near, far = cables[0]
    with McastSocket(FAMILY[version], [GROUP[version]], PORT, ifaces=["eth0", "eth1"]) as sock:
        exchange(sock, far, lambda: own_address(near, version), version)
        child = os.fork()
        if child == 0:
            status = 1
            try:
                sock.sendto(b"from the child", (GROUP[version], PORT))
                sock.leave_group(GROUP[version])
                sock.close()
                status = 0
            finally:
                os._exit(status)
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
        exchange(sock, far, lambda: own_address(near, version), version)


@pytest.mark.parametrize("version", [4, 6], ids=["IPv4", "IPv6"])
def test_too_few_descriptors(cables: list[tuple[Interface, Interface]], version: int) -> None:
    """Whichever descriptor is the last one, opening raises an error, leaves none open, and works later."""
    with McastSocket(FAMILY[version], [GROUP[version]], PORT, ifaces=["eth0", "eth1"]) as sock:
        needed = len(sock.filenos()) + 2
        before = open_descriptors()
        refused = 0
        for spare in range(1, needed):
            other = McastSocket(FAMILY[version], [GROUP[version]], PORT + 1, ifaces=["eth0", "eth1"])
            with descriptors_left(spare):
                try:
                    other.open()
                except MulticastOSError as error:
                    refused += 1
                    assert error.errno == errno.EMFILE  # noqa: PT017 - not every one fails
            other.close()
            all_closed(before)
            other.open()
            other.close()
        assert refused


def test_a_forgotten_socket(cables: list[tuple[Interface, Interface]]) -> None:
    """It is collected at once, with a ResourceWarning, and gives its descriptors back."""
    with McastSocket(FAMILY[4], [GROUP[4]], PORT, iface="eth0"):
        before = open_descriptors()
        sock = McastSocket(FAMILY[4], [GROUP[4]], PORT + 1, iface="eth0").open()
        with pytest.warns(ResourceWarning, match="unclosed"):
            del sock
        all_closed(before)


def test_changing_while_another_thread_receives_and_sends(cables: list[tuple[Interface, Interface]]) -> None:
    """Threads join, leave, send and reply at once; nothing fails, and every unicast datagram comes once."""
    near, far = cables[0]
    failures: list[BaseException] = []
    with McastSocket(FAMILY[4], [GROUP[4]], PORT, ifaces=["eth0", "eth1"]) as sock:
        over = threading.Event()

        def guarded(function: Callable[[], None]) -> threading.Thread:
            def run() -> None:
                try:
                    while not over.is_set():
                        function()
                except BaseException as error:  # noqa: BLE001 - the test tells it
                    failures.append(error)

            thread = threading.Thread(target=run)
            thread.start()
            return thread

        def change() -> None:
            sock.join_group("239.7.7.7").leave()

        def send() -> None:
            sock.sendto(b"x", ("239.7.7.7", PORT))
            sock.send_many([b"y"] * 10, (own_address(far, 4), PORT + 1))

        threads = [guarded(change), guarded(send), guarded(send)]
        with udp_socket(far.node, 4, (own_address(far, 4), 0)) as other:
            for number in range(200):
                other.sendto(b"%d" % number, (own_address(near, 4), PORT))
                datagram = sock.receive(timeout=PATIENCE)
                assert datagram.data == b"%d" % number
                sock.reply(datagram, b"re")
                assert other.recv(99) == b"re"
        over.set()
        for thread in threads:
            thread.join(PATIENCE)
    assert failures == []
