"""`mcast groups` on a host that has joined something."""

import json
import re
from collections.abc import Callable
from pathlib import Path

from cli.conftest import Done, Program, Run
from multicast_expert.testing import Host

Ended = Callable[..., Done]


def test_groups(mcast: Run, listening: Program) -> None:
    """What programs have joined is shown by interface, with sources and processes; -i shows one interface."""
    receiver = listening("10.9.0.7@232.1.2.3:5000%eth0", "239.1.2.3:5001%eth0", "[ff15::1]:5002%lo")
    done = mcast("groups", "-i", "10.9.0.1")
    assert (done.returncode, done.stderr) == (0, "")
    lines = done.stdout.splitlines()
    name = Path(f"/proc/{receiver.pid}/comm").read_text().strip()
    assert lines[:6] == [
        "eth0  IGMPv3",
        "  232.1.2.3  joined once, from 10.9.0.7",
        f"    port 5000: {name} ({receiver.pid})",
        "  239.1.2.3  joined once, from all",
        f"    port 5001: {name} ({receiver.pid})",
        "  by the system itself: 224.0.0.1",
    ]
    assert lines[6] == "eth0  MLD"
    assert re.fullmatch(r"  by the system itself: ff01::1, ff02::1(, ff02::1:ff[0-9a-f:]+)+", lines[7])
    assert len(lines) == 8
    everywhere = mcast("groups").stdout
    assert f"lo  MLD\n  ff15::1  joined once, from all\n    port 5002: {name} ({receiver.pid})\n" in everywhere
    assert done.stdout in everywhere


def test_groups_as_json(mcast: Run, listening: Program) -> None:
    """The same as JSON, with the sockets of which nobody knows what they have joined."""
    receiver = listening("10.9.0.7@232.1.2.4:5003%eth0")
    document = json.loads(mcast("groups", "--json", "-i", "eth0").stdout)
    [joined] = [each for each in document["groups"] if not each["by_the_system"]]
    assert (joined["group"], joined["interface"], joined["protocol"], joined["protocol_version"]) == (
        "232.1.2.4",
        "eth0",
        "IGMP",
        3,
    )
    assert (joined["any_source"], joined["included"]) == (False, [{"source": "10.9.0.7", "sockets": 1}])
    [bound] = joined["sockets"]
    assert (bound["port"], [process["pid"] for process in bound["processes"]]) == (5003, [receiver.pid])
    assert document["sockets_bound_to_no_address"] == []


def test_a_host_that_has_joined_nothing(bare: Host, mcast: Run) -> None:
    """The kernel's own groups are shown as such."""
    done = mcast("groups", on=bare)
    assert done.stdout.splitlines() == [
        "lo  IGMPv3",
        "  by the system itself: 224.0.0.1",
        "lo  MLD",
        "  by the system itself: ff01::1, ff02::1",
    ]


def test_an_unknown_interface(mcast: Run) -> None:
    """-i with what is no interface says which there are."""
    done = mcast("groups", "-i", "eth9")
    assert (done.returncode, done.stdout) == (1, "")
    assert (
        "'eth9' does not appear to be a valid interface name or IP address. Interfaces here: lo, eth0." in done.stderr
    )
