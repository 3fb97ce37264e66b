"""Who receives what, on a host where another socket has joined every group on every interface."""

import contextlib
import sys
from collections.abc import Iterable, Iterator
from subprocess import PIPE

import pytest

from linux.plain_sockets import FAMILY, LEVEL, any_address, group_request, member_on, own_address, udp_socket, until
from linux.three_legs import CASES, GROUPS, PORT, Network, Wish, three_legs
from multicast_expert import McastRxSocket, scan_interfaces
from multicast_expert.testing import Lab


@pytest.fixture(scope="module")
def network(lab: Lab) -> Iterator[Network]:
    """The three-legged host, for this file."""
    with three_legs(lab) as made:
        yield made


def take(receiver: McastRxSocket, ends: int) -> list[str]:
    """Receive until as many datagrams came that end in "!", and then whatever is left."""
    received: list[str] = []
    while ends > 0:
        data = receiver.recv()
        assert data is not None, f"{ends} datagrams are missing; {received} came"
        received.append(data.decode())
        ends -= received[-1].endswith("!")
    receiver.settimeout(0)
    while (data := receiver.recv()) is not None:
        received.append(data.decode())
    return received


@pytest.mark.parametrize("version", [4, 6], ids=["IPv4", "IPv6"])
@pytest.mark.parametrize("wishes", CASES.values(), ids=CASES)
def test_one_copy_of_what_was_asked_for_and_nothing_else(network: Network, version: int, wishes: list[Wish]) -> None:
    """Each receiver gets one copy of what it asked for, whatever else comes to the host, its port and its groups.

    Another socket on the port has joined everything: it shows that all of it arrived, and it loses nothing.
    """
    with contextlib.ExitStack() as opened:
        eavesdropper = opened.enter_context(network.eavesdropper(version))
        receivers = []
        for wish in wishes:
            receivers.append(network.receiver(version, wish))
            opened.callback(receivers[-1].close)

        sent = network.send_to_groups(version) + network.send_to_the_host(version)
        heard = [data.decode() for _, data in until([eavesdropper], len(sent))]
        # All of that has arrived, so what is sent now stands behind it in every queue.
        network.send_to_groups(version, "!")

        expected = [wish.datagrams() | {f"{name}!" for name in wish.datagrams()} for wish in wishes]
        received = [take(receiver, len(names) // 2) for receiver, names in zip(receivers, expected, strict=True)]
    assert sorted(heard) == sorted(sent)
    assert [sorted(names) for names in received] == [sorted(names) for names in expected]


@pytest.mark.parametrize("version", [4, 6], ids=["IPv4", "IPv6"])
def test_groups_of_another_process_stay_out(network: Network, version: int) -> None:
    """What another process has joined, on this interface or with this group, comes to a plain socket, not to us."""
    own, foreign = GROUPS[version]["a"], GROUPS[version]["d"]
    program = (
        "import socket, struct, sys\n"
        "receivers = []\n"
        "for request in sys.argv[1:]:\n"
        "    level, request = request.split(':')\n"
        "    receivers.append(socket.socket(*((2, 2) if level == '0' else (10, 2))))\n"
        "    receivers[-1].setsockopt(int(level), 42, bytes.fromhex(request))\n"
        "print('joined', flush=True)\n"
        "sys.stdin.read()\n"
    )
    requests = [
        f"{LEVEL[version]}:{group_request(group, network.interfaces[number].index()).hex()}"
        for number, group in (("1", own), ("0", foreign))
    ]
    other = network.host.popen([sys.executable, "-c", program, *requests], stdin=PIPE, stdout=PIPE, text=True)
    assert other.stdout is not None
    assert other.stdout.readline() == "joined\n"

    with contextlib.ExitStack() as opened:
        receiver = network.receiver(version, Wish("a", "0"))
        opened.callback(receiver.close)
        control = opened.enter_context(udp_socket(network.host, version, (any_address(version), PORT)))
        for number, group in (("1", own), ("0", foreign)):
            network.senders[version, f"{number}x"].sendto(f"{group} on {number}".encode(), (group, PORT))
        leaked = {data.decode() for _, data in until([control], 2)}
        network.senders[version, "0x"].sendto(b"ours!", (own, PORT))
        assert take(receiver, 1) == ["ours!"]
    network.host.end_process(other)
    assert leaked == {f"{own} on 1", f"{foreign} on 0"}


@pytest.mark.parametrize("version", [4, 6], ids=["IPv4", "IPv6"])
@pytest.mark.parametrize("spelling", ["name", "address", "IfaceInfo", "link-local address"])
def test_every_spelling_of_the_interface_means_that_interface(network: Network, version: int, spelling: str) -> None:
    """Named by name, address or IfaceInfo, only that interface's datagrams come, in both IP versions."""
    near = network.interfaces["1"]
    with network.host.entered():
        (info,) = (iface for iface in scan_interfaces() if iface.machine_name == near.name)
        specifiers = {
            "name": near.name,
            "address": own_address(near, version),
            "IfaceInfo": info,
            "link-local address": f"{near.link_local}%{near.name}",
        }
        group = GROUPS[version]["a"]
        with (
            network.eavesdropper(version) as eavesdropper,
            McastRxSocket(FAMILY[version], [group], PORT, iface=specifiers[spelling], timeout=10) as receiver,
        ):
            until([eavesdropper], len(network.send_to_groups(version)))
            network.send_to_groups(version, "!")
            assert sorted(take(receiver, 2)) == ["a1x", "a1x!", "a1y", "a1y!"]
            assert receiver.network_interfaces == [info]


def open_and_close(receivers: Iterable[McastRxSocket]) -> None:
    """Open all, then close all."""
    with contextlib.ExitStack() as opened:
        for receiver in receivers:
            opened.enter_context(receiver)


@pytest.mark.parametrize("version", [4, 6], ids=["IPv4", "IPv6"])
def test_a_closed_receiver_leaves_the_port_to_others(network: Network, version: int) -> None:
    """After our receivers come and go, another program's socket on the port still gets its unicast and its groups."""
    near = network.interfaces["0"]
    with member_on(near, GROUPS[version]["a"], PORT) as program, network.host.entered():
        groups = list(GROUPS[version].values())
        open_and_close(McastRxSocket(FAMILY[version], groups, PORT, iface=near.name) for _ in range(3))
        sender = network.senders[version, "0x"]
        sender.sendto(b"group", (groups[0], PORT))
        sender.sendto(b"unicast", (own_address(near, version), PORT))
        assert {data for _, data in until([program], 2)} == {b"group", b"unicast"}
