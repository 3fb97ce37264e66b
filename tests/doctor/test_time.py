"""How long the doctor takes, from its start as a program to its exit, on a host with much to look at."""

from contextlib import ExitStack
from ipaddress import IPv4Address
from time import perf_counter

import pytest

from doctor.command import doctor
from doctor.stage import ENDPOINT, GROUP, PORT, stage
from linux.plain_sockets import join, udp_socket
from multicast_expert.testing import Host, lab_unavailable

pytestmark = [
    pytest.mark.slow,
    pytest.mark.alone,
    pytest.mark.skipif(lab_unavailable() is not None, reason=f"no multicast lab: {lab_unavailable()}"),
]

PAIRS, MEMBERSHIPS, GROUPS_IN_A_SOCKET = 50, 1000, 20
LISTENING = 1.0
BOUND = 2.0
"""Seconds beyond the listening."""


def crowd(host: Host) -> None:
    """Give the host a hundred interfaces more, with addresses of both versions."""
    lines = []
    for pair in range(PAIRS):
        names = [f"net{2 * pair}", f"net{2 * pair + 1}"]
        lines.append(f"link add {names[0]} type veth peer name {names[1]}")
        for number, name in enumerate(names, 2 * pair):
            lines.append(f"addr add 10.3.{number}.1/24 dev {name}")
            lines.append(f"addr add fd03:{number}::1/64 dev {name} nodad")
            lines.append(f"link set {name} up")
    host.ip(*lines)


@pytest.mark.parametrize("privileged", [True, False], ids=["root", "unprivileged"])
def test_a_hundred_interfaces_and_a_thousand_memberships(privileged: bool) -> None:
    """The doctor takes less than two seconds beyond the time that it was told to listen."""
    taken = []
    with stage() as made, ExitStack() as opened:
        made.cable()
        crowd(made.listener)
        made.talker.send_datagrams(GROUP, PORT, interface="eth0")
        index = made.listener.interface("eth0").index()
        groups = [str(IPv4Address("239.9.0.0") + number) for number in range(1, MEMBERSHIPS + 1)]
        for start in range(0, MEMBERSHIPS, GROUPS_IN_A_SOCKET):
            member = opened.enter_context(udp_socket(made.listener, 4, ("0.0.0.0", 6000)))
            for group in groups[start : start + GROUPS_IN_A_SOCKET]:
                join(member, group, index)
        for _ in range(8):
            began = perf_counter()
            said = doctor(made.listener, [ENDPOINT], LISTENING, privileged=privileged, fresh=True)
            taken.append(perf_counter() - began - LISTENING)
            assert said.report["verdict"] == "ok", said.weighty
            if taken[-1] < BOUND:
                break  # another program may have taken the processor from the first tries
    print(f"beyond the listening: {min(taken):.2f} s")
    assert min(taken) < BOUND
