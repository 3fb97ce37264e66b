"""Commands that are started before the network: what `--wait` waits for, what it says, and how it ends."""

import errno
import re
import socket
import subprocess
from collections.abc import Callable, Iterator
from contextlib import suppress
from itertools import pairwise
from pathlib import Path
from time import monotonic, sleep
from typing import cast

import pytest

from cli.conftest import PATIENCE, Done, Program, Run
from linux.plain_sockets import member_on, nothing_for
from multicast_expert import McastTxSocket, MulticastOSError
from multicast_expert.cli.sending import Patience, Sending
from multicast_expert.core.pacing import Pace, Rate
from multicast_expert.testing import Host, Interface, Lab
from network.traffic import two_wires

Ended = Callable[..., Done]
ETH_P_ALL = 3
both_versions = pytest.mark.parametrize("version", [4, 6], ids=["IPv4", "IPv6"])
ENDPOINT = {4: "239.1.1.1:5000", 6: "[ff15::1:1]:5000"}
GROUP = {4: "239.1.1.1", 6: "ff15::1:1"}
ADDRESS = {4: "10.1.0.1", 6: "fd01::1"}


def next_message(process: "subprocess.Popen[str]") -> str:
    """The next line that it says."""
    assert process.stderr is not None
    return process.stderr.readline()


def wait_until_it_sleeps(process: "subprocess.Popen[str]") -> None:
    """Return when its main thread waits: only then does Ctrl-C meet what this is about."""
    deadline = monotonic() + PATIENCE
    waits = Path(f"/proc/{process.pid}/task/{process.pid}/wchan")
    while not re.search("futex|poll|nanosleep", waits.read_text()) and monotonic() < deadline:
        sleep(0.001)


def packet_socket() -> socket.socket:
    """What sees all that this host sends. No host beyond a switch does: a port forwards nothing in its first moment."""
    return socket.socket(socket.AF_PACKET, socket.SOCK_DGRAM, socket.htons(ETH_P_ALL))


def sent(wire: socket.socket, version: int) -> Iterator[tuple[str, str, bytes]]:
    """The interface, source and payload of each datagram to the group that has left until now."""
    family, source, size, headers = {4: (socket.AF_INET, 12, 4, 28), 6: (socket.AF_INET6, 8, 16, 48)}[version]
    wire.setblocking(False)
    with suppress(BlockingIOError):
        while True:
            packet, (interface, _, kind, *_) = wire.recvfrom(2000)
            if kind != socket.PACKET_OUTGOING or packet[0] >> 4 != version:
                continue
            sender, group = (socket.inet_ntop(family, packet[at : at + size]) for at in (source, source + size))
            if group == GROUP[version]:
                yield interface, sender, packet[headers:]


def own_lab(lab: Lab, name: str) -> tuple[Host, Interface]:
    """A host without an interface, and the other end of the cable that is plugged into it later."""
    switch = lab.switch(f"switch of {name}")
    far = lab.plug(lab.host(f"far of {name}"), switch, ipv4="10.1.0.2/24", ipv6="fd01::2/64")
    return lab.host(name), far


@both_versions
@pytest.mark.parametrize("by", ["name", "address"])
def test_a_receiver_waits_for_its_interface(program: Program, mcast: Run, ended: Ended, version: int, by: str) -> None:
    """It says once what it waits for, joins when that is there, and receives."""
    with two_wires(("eth1",)) as wires:
        iface = "eth0" if by == "name" else ADDRESS[version]
        receiver = program("recv", "--wait", ENDPOINT[version], "-i", iface, "-c", "1", "-W", "20", on=wires.listener)
        assert next_message(receiver) == f"listening to {GROUP[version]} port 5000 on no interface yet\n"
        assert next_message(receiver) == f"waiting for {iface}\n"
        wires.plug("eth0")
        assert next_message(receiver) == "mcast: 1 group joined on eth0\n"
        sender = wires.talkers["a"].node
        assert isinstance(sender, Host)
        assert mcast("send", ENDPOINT[version], "hello", "-i", "eth0", on=sender).returncode == 0
        done = ended(receiver)
    assert done.returncode == 0
    assert re.search(r":5000%eth0 from (10\.1\.0\.2|\[fd01::2\]):.*hello\n$", done.stdout)
    assert "waiting" not in done.stderr


def test_a_receiver_waits_for_any_interface(multicast_lab: Lab, program: Program, ended: Ended) -> None:
    """Where none is named, it waits for the first that has an address of the IP version."""
    host = multicast_lab.host("without")
    receiver = program("recv", "--wait", "239.1.2.3:5000", "[ff15::1]:5000", "-W", "20", on=host)
    assert next_message(receiver) == (
        "listening to 239.1.2.3 port 5000 on no interface yet; ff15::1 port 5000 on no interface yet\n"
    )
    assert next_message(receiver) == (
        "waiting for an interface with an IPv4 address, an interface with an IPv6 address\n"
    )
    host.add_interface("eth0", ipv4="10.9.0.1/24")
    assert {next_message(receiver), next_message(receiver)} == {"mcast: 1 group joined on eth0\n"}
    assert ended(receiver, interrupt=True).returncode == 130


def test_a_receiver_that_need_not_wait(mcast: Run) -> None:
    """It says nothing of waiting where all is there; and without --wait a missing interface is an error."""
    assert "waiting" not in mcast("recv", "239.1.2.3:5000%lo", "--wait", "-W", "0").stderr
    done = mcast("recv", "239.1.2.3:5000%usb0", "-W", "0")
    assert (done.returncode, "usb0" in done.stderr) == (1, True)


@pytest.mark.parametrize("command", ["pong", "bridge 239.1.2.3:5000"])
def test_a_server_waits_only_if_it_is_told_to(
    multicast_lab: Lab, program: Program, mcast: Run, ended: Ended, command: str
) -> None:
    """Without --wait a missing interface is an error at once; with it one line says what it waits for."""
    if command != "pong":
        pytest.importorskip("zenoh", reason="eclipse-zenoh is not installed")
    host = multicast_lab.host(f"with {command.split(maxsplit=1)[0]}")
    refused = mcast(*command.split(), "-i", "usb0", "--for", "0", on=host)
    assert (refused.returncode, refused.stdout) == (1, "")
    assert refused.stderr.startswith("mcast: 'usb0' does not appear to be a valid interface")
    waiting = program(*command.split(), "--wait", "-i", "usb0", on=host)
    assert next_message(waiting).startswith(("answering", "bridging"))
    assert next_message(waiting) == "waiting for usb0\n"
    assert ended(waiting, interrupt=True).returncode == 130


@both_versions
@pytest.mark.parametrize("by", ["name", "address"])
def test_a_sender_waits_for_its_interface(program: Program, ended: Ended, version: int, by: str) -> None:
    """It says once what it waits for, and sends when that is there: all that was asked for, and each once."""
    iface = "eth0" if by == "name" else ADDRESS[version]
    with two_wires(("eth1",)) as wires, wires.listener.entered(), packet_socket() as wire:
        options = ("-i", iface, "-c", "3", "--interval", "0")
        sender = program("send", ENDPOINT[version], "hello", "--wait", *options, on=wires.listener)
        assert next_message(sender) == f"waiting for {iface}\n"
        wires.plug("eth0")
        done = ended(sender)
        assert list(sent(wire, version)) == [("eth0", ADDRESS[version], b"hello")] * 3
    assert (done.returncode, done.stdout) == (0, "")
    assert done.stderr.endswith(f"3 datagrams, 15 bytes to {ENDPOINT[version]} out of eth0\n")
    # There may be a moment between the address and the route; it says that once, too.
    before = done.stderr.splitlines()[:-1]
    assert len(before) <= {4: 1, 6: 2}[version]
    assert all(line.startswith("waiting: Cannot ") for line in before)


def test_the_schedule_waits_with_the_sender() -> None:
    """What was due while an interface was away leaves at the usual distances afterwards, not all at once."""
    times: list[float] = []

    class Flaky:
        def sendto(self, data: bytes, address: tuple[str, int]) -> None:
            if len(times) == 2 and monotonic() < times[-1] + 0.5:
                raise MulticastOSError(errno.ENODEV, "send", "It is away.", "", "")
            times.append(monotonic())

    class Waiting:
        def wait_after(self, error: MulticastOSError) -> None:
            sleep(0.01)

    flaky, waiting = cast("McastTxSocket", Flaky()), cast("Patience", Waiting())
    Sending(flaky, ("239.1.2.3", 5000), Pace(Rate(5)), patience=waiting).send_all([b"x"] * 6, 0, None)
    gaps = [later - earlier for earlier, later in pairwise(times)]
    assert gaps[1] >= 0.5
    assert sum(gaps[2:]) > 0.4


def test_a_sender_waits_until_an_address_can_be_used(program: Program, ended: Ended) -> None:
    """While IPv6 checks a new address for duplicates, it waits too, and says so once."""
    with two_wires(("eth1",), dad=True) as wires, member_on(wires.talkers["a"], GROUP[6], 5000) as judge:
        sender = program("send", ENDPOINT[6], "hello", "--wait", "-i", ADDRESS[6], on=wires.listener)
        assert next_message(sender) == f"waiting for {ADDRESS[6]}\n"
        wires.plug("eth0")
        assert judge.recvfrom(100)[0] == b"hello"
        done = ended(sender)
    assert (done.returncode, done.stderr.count("waiting")) in [(0, 0), (0, 1)]


def test_a_sender_waits_for_a_route(multicast_lab: Lab, program: Program, ended: Ended) -> None:
    """Where no interface is named, it waits for the default route."""
    host, far = own_lab(multicast_lab, "routeless")
    sender = program("send", ENDPOINT[4], "hello", "--wait", on=host)
    assert next_message(sender) == "waiting for the interface of a default IPv4 route\n"
    with member_on(far, GROUP[4], 5000) as judge:
        multicast_lab.plug(host, far.peer.node, ipv4="10.1.0.1/24")  # type: ignore[arg-type]  # it is the switch
        host.ip("route add default via 10.1.0.2")
        assert judge.recv(100) == b"hello"
    assert ended(sender).returncode == 0


@pytest.mark.parametrize("count", ["0", "1000"])
def test_a_sender_survives_the_loss_of_its_interface(program: Program, ended: Ended, count: str) -> None:
    """With --wait it goes on when its interface is back; without, it ends with the error."""
    with two_wires() as wires, member_on(wires.talkers["a"], GROUP[4], 5000) as judge:
        options = ("-i", "eth0", "-c", count, "--interval", "0.01")
        waits = program("send", ENDPOINT[4], "waits", "--wait", *options, on=wires.listener)
        ends = program("send", ENDPOINT[4], "ends", *options, on=wires.listener)
        while {judge.recv(100) for _ in range(20)} != {b"waits", b"ends"}:
            pass
        wires.listener.remove_interface("eth0")
        assert ended(ends).returncode == 1
        assert next_message(waits).startswith(("waiting: Cannot send", "nothing can be sent from eth0"))
        while not nothing_for(judge):
            judge.recv(100)
        wires.listener.recreate_interface("eth0")
        assert judge.recv(100) == b"waits"
        done = ended(waits, interrupt=True)
    assert done.returncode == 130
    assert re.search(r"\d+ datagrams, \d+ bytes to 239\.1\.1\.1:5000 out of eth0\n$", done.stderr)


@pytest.mark.parametrize("command", ["recv", "send"])
def test_ctrl_c_while_it_waits(bare: Host, program: Program, ended: Ended, command: str) -> None:
    """Ctrl-C ends the wait at once, without a traceback."""
    process = program(command, "239.1.2.3:5000%usb0", "--wait", on=bare)
    while next_message(process) != "waiting for usb0\n":
        pass
    wait_until_it_sleeps(process)
    started = monotonic()
    done = ended(process, interrupt=True)
    assert monotonic() - started < PATIENCE
    assert (done.returncode, done.stdout) == (130, "")
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize("endpoint", ["239.1.2.3:5000%eth9", "[ff02::5]:5000%eth9", "[ff15::1]:5000%4711"])
@pytest.mark.parametrize("command", ["recv", "send"])
def test_a_scope_that_is_no_interface(mcast: Run, command: str, endpoint: str) -> None:
    """An interface in the endpoint that is not there is refused, with what there is."""
    done = mcast(command, endpoint)
    assert done.returncode == 1
    assert re.search(r"(eth9|4711).*lo, eth0", done.stderr)


def test_a_scope_among_several_interfaces(mcast: Run, bare: Host) -> None:
    """With several -i, the endpoint chooses one of them; one that is none of them is refused."""
    done = mcast("send", "239.1.2.3:5000%eth0", "-i", "lo", "-i", "eth0")
    assert done.stderr.endswith("out of eth0\n")
    done = mcast("send", "239.1.2.3:5000%eth0", "-i", "lo")
    assert (done.returncode, "-i names lo" in done.stderr) == (2, True)
