"""The structs of all four OSes, byte for byte as C compilers lay them out from the field names.

A row of golden/*.txt: what it is, its size, its bytes in hex. They are for group 239.1.2.3 or ff15::1234, source
10.0.0.7 or fd00::7, interface index 5 with address 10.0.0.1, on 64-bit little-endian machines.
"""

import sys
from collections.abc import Callable
from ipaddress import ip_address
from pathlib import Path
from struct import calcsize

import pytest

from multicast_expert.platforms import PLATFORMS, Platform, layouts

pytestmark = pytest.mark.skipif(
    sys.byteorder != "little" or calcsize("P") != 8,
    reason="the golden bytes are those of 64-bit little-endian machines",
)

GROUP, SOURCE, ADDRESS = (ip_address(text).packed for text in ("239.1.2.3", "10.0.0.7", "10.0.0.1"))
GROUP6, SOURCE6 = ip_address("ff15::1234").packed, ip_address("fd00::7").packed
INDEX = 5

BUILDERS: dict[str, Callable[[Platform], bytes]] = {
    "ip_mreq": lambda platform: layouts.ip_mreq(GROUP, ADDRESS),
    "ip_mreq_idx": lambda platform: layouts.ip_mreq(GROUP, layouts.index_as_address(INDEX)),
    "ip_mreqn": lambda platform: layouts.ip_mreqn(GROUP, ADDRESS, INDEX),
    "ip_mreq_source": lambda platform: platform.layouts.ip_mreq_source(GROUP, SOURCE, ADDRESS),
    "ip_mreq_source_idx": lambda platform: platform.layouts.ip_mreq_source(
        GROUP, SOURCE, layouts.index_as_address(INDEX)
    ),
    "mcast_if_idx": lambda platform: layouts.index_as_address(INDEX),
    "mcast_if6": lambda platform: layouts.index(INDEX),
    "ipv6_mreq": lambda platform: layouts.ipv6_mreq(GROUP6, INDEX),
    "group_req4": lambda platform: platform.layouts.group_req(GROUP, INDEX),
    "group_req6": lambda platform: platform.layouts.group_req(GROUP6, INDEX),
    "group_source_req4": lambda platform: platform.layouts.group_source_req(GROUP, SOURCE, INDEX),
    "group_source_req6": lambda platform: platform.layouts.group_source_req(GROUP6, SOURCE6, INDEX),
}


def golden_rows() -> dict[tuple[str, str], bytes]:
    """Return the bytes by OS and row name."""
    rows = {}
    for file in sorted((Path(__file__).parent / "golden").glob("*.txt")):
        for line in file.read_text().splitlines():
            name, size, digits = line.split()
            rows[file.stem, name] = bytes.fromhex(digits)
            assert len(rows[file.stem, name]) == int(size)
    return rows


ROWS = golden_rows()


def test_all_rows_are_there() -> None:
    """39 rows over all four OSes are compared, and each builder is used."""
    assert len(ROWS) == 39
    assert {system for system, _ in ROWS} == set(PLATFORMS)
    assert {name for _, name in ROWS} == set(BUILDERS)


@pytest.mark.parametrize(("system", "name"), ROWS, ids="-".join)
def test_struct(system: str, name: str) -> None:
    """The struct that the library packs for the OS equals the compiler's."""
    assert BUILDERS[name](PLATFORMS[system]).hex() == ROWS[system, name].hex()


# What IP_ADD_MEMBERSHIP and its kin take on each OS: a golden row, or bytes where the OS has no row of that form.
BY_INDEX = GROUP + b"\0\0\0\x05"
CLASSIC = {
    "linux": (ROWS["linux", "ip_mreqn"], ROWS["linux", "ip_mreq_source"]),
    "macos": (BY_INDEX, GROUP + SOURCE + b"\0\0\0\x05"),
    "windows": (ROWS["windows", "ip_mreq_idx"], ROWS["windows", "ip_mreq_source_idx"]),
    "freebsd": (ROWS["freebsd", "ip_mreqn"], ROWS["freebsd", "ip_mreq_source"]),
}
# Operation to the protocol-independent option, the classic ones for IPv4 and IPv6.
NAMES = {
    "join": ("MCAST_JOIN_GROUP", "IP_ADD_MEMBERSHIP", "IPV6_JOIN_GROUP"),
    "leave": ("MCAST_LEAVE_GROUP", "IP_DROP_MEMBERSHIP", "IPV6_LEAVE_GROUP"),
    "join source": ("MCAST_JOIN_SOURCE_GROUP", "IP_ADD_SOURCE_MEMBERSHIP", None),
    "leave source": ("MCAST_LEAVE_SOURCE_GROUP", "IP_DROP_SOURCE_MEMBERSHIP", None),
    "block source": ("MCAST_BLOCK_SOURCE", "IP_BLOCK_SOURCE", None),
    "unblock source": ("MCAST_UNBLOCK_SOURCE", "IP_UNBLOCK_SOURCE", None),
}


@pytest.mark.parametrize("operation", NAMES)
@pytest.mark.parametrize("system", PLATFORMS)
def test_change_of_an_ipv4_membership(system: str, operation: str) -> None:
    """The MCAST_* call by index comes first, the classic one second, in the form that the OS reads."""
    of_source = operation.endswith("source")
    change = operation, GROUP, SOURCE if of_source else b"", INDEX
    ways = PLATFORMS[system].change_membership(*change), PLATFORMS[system].classic_membership(*change, ADDRESS)
    modern, classic, _ = NAMES[operation]
    assert [(way.name, way.level, way.value) for way in ways if way is not None] == [
        (modern, 0, ROWS[system, "group_source_req4" if of_source else "group_req4"]),
        (classic, 0, CLASSIC[system][of_source]),
    ]


@pytest.mark.parametrize("operation", NAMES)
@pytest.mark.parametrize("system", PLATFORMS)
def test_change_of_an_ipv6_membership(system: str, operation: str) -> None:
    """As for IPv4, at the IPv6 level; no OS has a classic call that names an IPv6 source."""
    of_source = operation.endswith("source")
    change = operation, GROUP6, SOURCE6 if of_source else b"", INDEX
    ways = PLATFORMS[system].change_membership(*change), PLATFORMS[system].classic_membership(*change, ADDRESS)
    modern, _, classic = NAMES[operation]
    expected = [(modern, 41, ROWS[system, "group_source_req6" if of_source else "group_req6"])]
    if classic:
        expected.append((classic, 41, ROWS[system, "ipv6_mreq"]))
    assert [(way.name, way.level, way.value) for way in ways if way is not None] == expected


@pytest.mark.parametrize(
    ("system", "value"),
    [
        ("linux", bytes(4) + ADDRESS + b"\x05\0\0\0"),
        ("macos", bytes(4) + ADDRESS + b"\x05\0\0\0"),
        ("freebsd", bytes(4) + ADDRESS + b"\x05\0\0\0"),
        ("windows", ROWS["windows", "mcast_if_idx"]),
    ],
)
def test_outgoing_interface(system: str, value: bytes) -> None:
    """IP_MULTICAST_IF takes an ip_mreqn, on Windows the index as an address; IPV6_MULTICAST_IF the index everywhere."""
    platform = PLATFORMS[system]
    option = platform.send_interface(4, INDEX, ADDRESS, "eth0")
    assert (option.name, option.level, option.value) == ("IP_MULTICAST_IF", 0, value)
    option = platform.send_interface(6, INDEX, ADDRESS, "eth0")
    assert (option.name, option.level, option.value) == ("IPV6_MULTICAST_IF", 41, b"\x05\0\0\0")
