"""`mcast groups` on a host that has joined something."""

import json
import re
import subprocess
import sys
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
        f"    port 5000: {name} ({receiver.pid}), from 10.9.0.7",
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


DEAF = """
import socket, struct, time
group = struct.pack("4s4s", socket.inet_aton("239.1.2.9"), socket.inet_aton("10.9.0.1"))
for address, port in (("", 5004), ("10.9.0.1", 5005), ("239.1.2.8", 5006)):
    sock = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    sock.bind((address, port))
    sock.setsockopt(socket.IPPROTO_IP, socket.IP_ADD_MEMBERSHIP, group)
    globals()[f"kept{port}"] = sock
print("joined", flush=True)
time.sleep(600)
"""


def test_programs_that_can_never_receive_what_they_joined(mcast: Run, host: Host) -> None:
    """Each program that joined is named, whatever it is bound to, and the deaf ones with the reason."""
    with host.popen([sys.executable, "-c", DEAF], stdout=subprocess.PIPE, text=True) as program:
        try:
            assert program.stdout is not None
            assert program.stdout.readline() == "joined\n"
            shown = mcast("groups", "-i", "eth0").stdout
            [group] = [each for each in json.loads(mcast("groups", "--json").stdout)["groups"] if each["members"]]
        finally:
            program.kill()
    lines = [line.partition(": ") for line in shown.splitlines() if line.startswith("    port")]
    assert [(port.strip(), rest.partition(")")[2]) for port, _, rest in lines] == [
        ("port 5004", ""),
        ("port 5005", ": never receives it, bound to 10.9.0.1, a unicast address"),
        ("port 5006", ": never receives it, bound to 239.1.2.8, another group"),
    ]
    assert "bound to no address" not in shown
    assert [each["never_receives"] for each in group["members"]] == [
        None,
        "bound to 10.9.0.1, a unicast address",
        "bound to 239.1.2.8, another group",
    ]


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
