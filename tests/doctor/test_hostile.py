"""What the kernel tells may be cut, damaged or senseless: each reader passes over it, or raises our own error."""

import random
import re
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from struct import pack

import pytest
from hypothesis import given
from hypothesis import strategies as st

from drops.conftest import verdict_unavailable
from multicast_expert.core.errors import MulticastExpertError
from multicast_expert.doctor.facts import IpsecPolicy, PolicyRule, QueueFacts
from multicast_expert.doctor.host import linux_counters, linux_messages
from multicast_expert.system import listings
from multicast_expert.system.drops.program import Layout, read_layout
from multicast_expert.system.drops.symbols import Symbols
from multicast_expert.system.netlink import attribute

# Messages of netlink: a head that fits, and attributes of which some lie about their length.
VALUES = st.binary(max_size=20) | st.integers(0, 1 << 32 - 1).map(lambda number: pack("=Q", number)[:4])
ATTRIBUTES = st.lists(
    st.builds(attribute, st.integers(0, 40), VALUES)
    | st.builds(lambda name, size: pack("=HH", size, name), st.integers(0, 65535), st.integers(0, 65535)),
    max_size=6,
).map(b"".join)
BODIES = st.builds(lambda head, rest: head + rest, st.binary(max_size=170), ATTRIBUTES)


@given(BODIES)
def test_messages_of_the_doctor(body: bytes) -> None:
    """Each is a fact whose texts can be shown, or nothing."""
    queue = linux_messages.parse_queue(body, {1: "lo"})
    rules = [linux_messages.parse_rule(body, version) for version in (4, 6)]
    policy = linux_messages.parse_policy(body)
    kind = linux_messages.parse_route_type(body)
    assert queue is None or (isinstance(queue, QueueFacts) and queue.interface)
    assert all(each is None or (isinstance(each, PolicyRule) and each.text) for each in rules)
    assert policy is None or (isinstance(policy, IpsecPolicy) and policy.direction in ("in", "out", "fwd"))
    assert kind is None or kind.isalpha()


# Files of /proc: recorded lines, cut and changed, between any others.
LINES = (
    "Ip: Forwarding DefaultTTL InReceives", "Ip: 1 64 100", "TcpExt: IPReversePathFilter", "TcpExt: 7",
    "Ip6InReceives                   \t100", "XfrmInPolBlock          \t3",
    "  eth0: 1000 10 0 2 0 0 0 3 1000 10 0 0 0 0 0 0", "Inter-|   Receive", " face |bytes    packets errs drop fifo",
    "2\teth0      :     2      V3", "\t\t\t\tFB0201EF     1 0:00000000\t\t0",
    "2    eth0            ff150000000000000000000000001234     1 00000004 0",
    "  2 eth0 0xef010203 0x0a000001      1      0",
    "  12: 00000000:1388 00000000:0000 07 00000000:00000000 00:00000000 00000000  0  0 4711 2 0000000000000000 0",
    "ffffffff81000000 T first", "0000000000000000 t hidden.isra.0\t[module]",
)  # fmt: skip


@st.composite
def files(draw: st.DrawFn) -> str:
    """A text that is almost a file of /proc."""
    lines = [
        line[: draw(st.integers(0, len(line)))] if draw(st.booleans()) else line
        for line in draw(st.lists(st.sampled_from(LINES) | st.text(max_size=20), max_size=8))
    ]
    text = "\n".join(lines)
    for place in draw(st.lists(st.integers(0, max(0, len(text))), max_size=4)):
        text = (
            text[:place]
            + draw(st.sampled_from(["", " ", "\t", ":", "9" * 5000, "9" * 25, "-1", "²", "\udcff", "\0", "x"]))
            + text[place:]
        )
    return text


READERS: dict[str, Callable[[str], object]] = {
    "snmp": linux_counters.parse_snmp,
    "snmp6": linux_counters.parse_snmp6,
    "xfrm_stat": linux_counters.parse_xfrm,
    "dev_snmp6": linux_counters.parse_interface_snmp6,
    "dev": linux_counters.parse_devices,
    "igmp": lambda text: listings.parse_igmp(text, "little"),
    "igmp6": listings.parse_igmp6,
    "mcfilter": listings.parse_source_filters,
    "udp": lambda text: listings.parse_udp(text, "little"),
    "if_inet6": listings.parse_tentative,
    "kallsyms": lambda text: Symbols(text.encode("utf-8", "surrogateescape")).function(0xFFFFFFFF81000001),
}


@pytest.mark.parametrize("name", READERS)
@given(text=files())
def test_files_of_the_kernel(name: str, text: str) -> None:
    """Lines of another form say nothing; no number is larger than a counter of the kernel."""
    found = READERS[name](text)
    if isinstance(found, dict):
        numbers = [each for each in found.values() if isinstance(each, int)]
        assert all(0 <= each < 1 << 64 for each in numbers)
    elif isinstance(found, Iterable) and not isinstance(found, str):
        assert all(each is not None for each in found)


@pytest.mark.parametrize("name", READERS)
@pytest.mark.parametrize("line", LINES, ids=range(len(LINES)))
def test_numbers_without_end(name: str, line: str) -> None:
    """Python refuses to read a number of so many digits; a line with one says nothing, wherever in it it stands."""
    for number in re.finditer(r"\b\d+\b", line):
        changed = line[: number.start()] + "9" * 5001 + line[number.end() :]
        found = READERS[name](f"{LINES[0]}\n{changed}\n{line}\n")
        if isinstance(found, Iterable):
            list(found)


def test_the_types_of_this_kernel_cut_and_damaged() -> None:
    """Wherever the BTF of a real kernel is cut or changed, the answer is a layout or our own error, within seconds."""
    if reason := verdict_unavailable():
        pytest.skip(reason)
    whole = Path("/sys/kernel/btf/vmlinux").read_bytes()
    dice = random.Random(12)
    outcomes = []
    for turn in range(40):
        data = bytearray(whole)
        if turn % 2:
            del data[dice.randrange(len(data)) :]
        else:
            # In the header, among the types, or anywhere: bits, zeros, and the largest numbers.
            for _ in range(dice.choice((1, 20, 2000))):
                place = dice.randrange(dice.choice((24, 200_000, len(data))))
                data[place] = dice.choice((0, 255, dice.randrange(256)))
        began = time.process_time()
        try:
            outcomes.append(isinstance(read_layout(bytes(data)), Layout))
        except MulticastExpertError as error:
            outcomes.append(False)
            assert str(error).isprintable()  # noqa: PT017 - either outcome is right, and nothing else
        assert time.process_time() - began < 10
    assert not any(outcomes[1::2])
