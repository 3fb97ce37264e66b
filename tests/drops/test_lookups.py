"""What the kernel tells about programs that look up the route to a group in order to send there."""

import socket
import struct
from ipaddress import ip_address

import pytest

from doctor.stage import GROUP, GROUP6, PORT, Stage
from multicast_expert.system.drops.lookups import LookupWatch, RouteLookups, summed

NUMBER = 20


def send(group: str, interface: str | None) -> set[int | None]:
    """Try to send NUMBER datagrams, and return the errors."""
    errors: set[int | None] = set()
    index = socket.if_nametoindex(interface) if interface else 0
    with socket.socket(socket.AF_INET6 if ":" in group else socket.AF_INET, socket.SOCK_DGRAM) as sender:
        if ":" in group:
            sender.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_MULTICAST_IF, index)
        else:
            place = struct.pack("=4s4si", bytes(4), bytes(4), index)
            sender.setsockopt(socket.IPPROTO_IP, socket.IP_MULTICAST_IF, place)
        for _ in range(NUMBER):
            try:
                sender.sendto(b"x", (group, PORT))
            except OSError as error:
                errors.add(error.errno)
    return errors


@pytest.mark.parametrize(
    ("group", "commands", "interface", "refused"),
    [
        (GROUP, (), None, True),
        (GROUP, (), "eth0", False),
        (GROUP, ("route add default dev eth0",), None, False),
        (GROUP, ("route add blackhole 239.0.0.0/8",), None, True),
        (GROUP, ("route add default dev eth0", "rule add to 239.0.0.0/8 prohibit pref 100"), None, True),
        (GROUP, ("route add blackhole 239.9.0.0/16", "route add default dev eth0"), None, False),
        (GROUP6, (), "eth0", False),
        (GROUP6, ("route add unreachable ff15::/16 table local metric 1",), None, True),
    ],
)
def test_lookups_are_counted_by_what_the_routing_tables_answer(
    cabled: Stage, group: str, commands: tuple[str, ...], interface: str | None, refused: bool
) -> None:
    """As many lookups as datagrams are seen, refused where sending fails, and nothing of another group."""
    cabled.listener.ip(*commands)
    with cabled.listener.entered():
        watch = LookupWatch(ip_address(group))
        try:
            index = socket.if_nametoindex("eth0")
            errors = send(group, interface)
            send("239.88.0.1" if ":" not in group else "ff15::88", interface)
            found = watch.found()
        finally:
            watch.close()
    assert bool(errors) is refused
    (only,) = found
    assert only.interface == (index if interface else 0)
    assert only.asked in ((NUMBER,) if ":" not in group else (NUMBER, 2 * NUMBER))
    assert only.refused == (only.asked if refused else 0)


def test_other_namespaces_are_not_counted(cabled: Stage) -> None:
    """What programs of another host send to the group does not show."""
    with cabled.listener.entered():
        watch = LookupWatch(ip_address(GROUP))
    try:
        with cabled.talker.entered():
            send(GROUP, "eth0")
        assert watch.found() == []
    finally:
        watch.close()


def test_a_lookup_that_asks_several_tables_is_one() -> None:
    """It is refused only if no table had an answer."""
    answers = [("a", 0, 255, True, 9), ("a", 0, 254, False, 7), ("a", 0, 254, True, 2), ("b", 2, 254, False, 4)]
    assert summed(answers) == [RouteLookups("a", 0, 9, 2), RouteLookups("b", 2, 4, 0)]
