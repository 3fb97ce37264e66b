"""How long it takes to open a receiver, on a host with many interfaces and against a bare socket in the same run."""

import gc
import socket
from collections.abc import Callable, Iterator
from statistics import median
from time import perf_counter, thread_time

import pytest

from linux.plain_sockets import FAMILY, LEVEL, MCAST_JOIN_GROUP, any_address, group_request
from multicast_expert import IfaceInfo, McastRxSocket, extension, scan_interfaces
from multicast_expert.testing import Host, Lab

pytestmark = pytest.mark.alone

PORT = 5000
GROUP = {4: "239.1.2.3", 6: "ff15::1:2:3"}
INTERFACES = 105
# Seconds: a tenth of what asking for them one by one, as programs in Python usually do, took where this bound was set.
BOUND = 0.0078

both_versions = pytest.mark.parametrize("version", [4, 6], ids=["IPv4", "IPv6"])


@pytest.fixture(scope="module")
def crowded(lab: Lab) -> Iterator[Host]:
    """A host with 104 Ethernet interfaces that have addresses of both families, and lo; the tests run in it."""
    host = lab.host("crowded")
    lines = []
    for pair in range((INTERFACES - 1) // 2):
        names = f"eth{2 * pair}", f"eth{2 * pair + 1}"
        lines.append(f"link add {names[0]} type veth peer name {names[1]}")
        for end, name in enumerate(names):
            number = 2 * pair + end
            lines.append(f"addr add 10.3.{number}.1/24 dev {name}")
            lines.append(f"addr add fd03:{number}::1/64 dev {name} nodad")
            lines.append(f"link set {name} up")
    host.ip(*lines)
    with host.entered():
        assert len(socket.if_nameindex()) == INTERFACES
        yield host


def seconds(make: Callable[[], McastRxSocket], clock: Callable[[], float] = perf_counter) -> float:
    """How long it takes to make and open a receiver."""
    start = clock()
    made = make().open()
    taken = clock() - start
    made.close()
    return taken


def best_of_rounds(measure: Callable[[], float], good_enough: float) -> float:
    """The smallest of up to twelve measurements; the first that is good enough ends it."""
    best = measure()
    for _ in range(11):
        if best < good_enough:
            break
        best = min(best, measure())
    return best


@both_versions
@pytest.mark.parametrize("spelling", ["name", "address"])
def test_opening_by_name_among_105_interfaces(crowded: Host, version: int, spelling: str) -> None:
    """Making and opening a receiver for one interface takes under 7.8 ms, however many others there are.

    The median is of processor time: on a busy machine the clock on the wall measures the other programs too.
    """
    specifier = {"name": "eth77", "address": {4: "10.3.77.1", 6: "fd03:77::1"}[version]}[spelling]

    def make() -> McastRxSocket:
        return McastRxSocket(FAMILY[version], [GROUP[version]], PORT, specifier, timeout=0)

    walls = [seconds(make) for _ in range(15)]
    processor = [seconds(make, thread_time) for _ in range(25)]
    print(
        f"processor {median(processor) * 1000:.2f} ms, wall {median(walls) * 1000:.2f}, at best {min(walls) * 1000:.2f}"
    )
    assert median(processor) < BOUND
    # Nor does it wait for something: however busy the machine, the best of the tries on the wall is in reach of that.
    assert min(walls) < 10 * BOUND


@both_versions
def test_finding_one_interface_is_cheaper_than_describing_all(crowded: Host, version: int) -> None:
    """Opening by name takes less than half of a scan of the interfaces: only the one that is meant is looked at."""

    def ratio() -> float:
        scans, opens = [], []
        for _ in range(15):
            start = perf_counter()
            found = scan_interfaces()
            scans.append(perf_counter() - start)
            opens.append(seconds(lambda: McastRxSocket(FAMILY[version], [GROUP[version]], PORT, "eth77", timeout=0)))
            assert len(found) == INTERFACES
        print(f"open by name {median(opens) * 1000:.2f} ms, scan {median(scans) * 1000:.2f} ms")
        return median(opens) / median(scans)

    assert best_of_rounds(ratio, 0.5) < 0.5


@pytest.mark.slow  # so that it runs at the end, with nothing beside it
@both_versions
def test_opening_with_an_iface_info(crowded: Host, version: int) -> None:
    """Given an IfaceInfo, a receiver is made and opened within three times the time of a bare socket with one join:
    the median of 2,000 pairs, after four seconds of the same. A processor that was idle, or that other machines share,
    is slow for a while, and more so with what is larger: that alone moves the ratio by a tenth. So a median that is too
    large is taken again, twice.

    Another socket with UDP_GRO is open: the first one on the machine makes Linux patch its own code (a static key),
    which takes a tenth of a millisecond.
    """
    (info,) = (iface for iface in scan_interfaces() if iface.machine_name == "eth77")

    def make() -> McastRxSocket:
        return McastRxSocket(FAMILY[version], [GROUP[version]], PORT, info, timeout=0)

    with socket.socket(FAMILY[version], socket.SOCK_DGRAM) as other:
        other.setsockopt(socket.IPPROTO_UDP, 104, 1)
        limit = 3.5 if extension.native is None else 3
        for _ in range(3):
            end = perf_counter() + 4
            while perf_counter() < end:
                seconds(make), bare_seconds(version, info)
            # As timeit does: how much the collector goes through depends on all the tests that ran before.
            gc.disable()
            try:
                pairs = [(seconds(make), bare_seconds(version, info)) for _ in range(2000)]
            finally:
                gc.enable()
            ratio = median(ours / bare for ours, bare in pairs)
            print(f"ours {median(ours for ours, _ in pairs) * 1e6:.1f} us, ratio {ratio:.2f}")
            if ratio <= limit:
                break
    assert ratio <= limit


def bare_seconds(version: int, info: IfaceInfo) -> float:
    """How long a socket with one join takes without any library."""
    start = perf_counter()
    opened = socket.socket(FAMILY[version], socket.SOCK_DGRAM)
    opened.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    opened.bind((any_address(version), PORT))
    opened.setsockopt(LEVEL[version], MCAST_JOIN_GROUP, group_request(GROUP[version], info.index))
    taken = perf_counter() - start
    opened.close()
    return taken
