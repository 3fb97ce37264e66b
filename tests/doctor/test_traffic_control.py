"""Filters of traffic control are read as tc(8) shows them, with what their actions got."""

import pytest

from doctor.stage import GROUP, PORT, Stage, stage
from multicast_expert.doctor.facts import FilterFacts, QueueFacts, Target, Unread
from multicast_expert.doctor.host.linux import LinuxHost
from multicast_expert.doctor.host.linux_filters import parse_filter
from multicast_expert.testing import lab_unavailable, wait_until

pytestmark = pytest.mark.skipif(lab_unavailable() is not None, reason=f"no multicast lab: {lab_unavailable()}")


def read(made: Stage) -> tuple[tuple[FilterFacts, ...] | Unread, tuple[QueueFacts, ...] | Unread]:
    """What the listener has."""
    with made.listener.entered():
        host = LinuxHost(Target(GROUP, PORT, None, None, 4))
        return host.filters(), host.queues()


def test_filters_of_every_hook() -> None:
    """Each action is read with its hook, kind, preference and interface, and whether packets go no further."""
    ingress = "filter add dev eth0 ingress pref 7 protocol ip u32"
    with stage() as made:
        made.cable()
        made.second_interface()
        for command in (
            "qdisc add dev eth0 clsact",
            f"{ingress} match ip dst {GROUP} action mirred egress redirect dev eth1",
            "filter add dev eth0 egress pref 8 protocol ip u32 match u32 0 0 action mirred egress mirror dev eth1",
        ):
            made.listener.command("tc", *command.split())
        found, queues = read(made)
        assert not isinstance(found, Unread)
        shown = {(each.interface, each.hook, each.kind, each.preference, each.action, each.diverts) for each in found}
        assert shown == {
            ("eth0", "ingress", "u32", 7, "mirred egress redirect dev eth1", True),
            ("eth0", "egress", "u32", 8, "mirred egress mirror dev eth1", False),
        }
        assert not isinstance(queues, Unread)
        assert [(each.kind, each.is_ingress) for each in queues if each.interface == "eth0"] == [("clsact", True)]


def test_packets_that_wait_are_counted() -> None:
    """A queue tells how many packets it holds."""
    with stage() as made:
        made.cable()
        made.listener.command(
            "tc", *["qdisc", "add", "dev", "eth0", "root", "tbf", "rate", "1kbit", "burst", "1540", "limit", "100000"]
        )
        with made.listener.send_datagrams(GROUP, PORT, interface="eth0", size=1000, interval=0.005) as traffic:
            wait_until(lambda: traffic.sent >= 20, "20 datagrams")
        _, queues = read(made)
        assert not isinstance(queues, Unread)
        (shaper,) = (each for each in queues if each.kind == "tbf")
        assert shaper.waiting >= 15


@pytest.mark.parametrize("length", range(0, 24, 4))
def test_a_cut_message_is_no_filter(length: int) -> None:
    """Whatever is missing, nothing is made up."""
    assert list(parse_filter(bytes(length), "ingress", {})) == []
