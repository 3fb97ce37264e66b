"""Mutated IGMP and MLD packets, most with a right checksum, for the parser and the state machines.

`python -m tests.wire.mutations --count 1000000` runs as many as it says.
"""

import argparse
import time
from random import Random
from struct import pack

from multicast_expert.core.addresses import address_text
from multicast_expert.observe.members import Link
from multicast_expert.observe.querier import PENDING, LinkQuerier, QuerierSettings
from multicast_expert.wire.frames import ICMPV6, internet_checksum, upper_layer_checksum
from multicast_expert.wire.group_messages import (
    GroupMessage,
    GroupQuery,
    GroupRecord,
    GroupReport,
    RecordKind,
    build_group_message,
    parse_group_message,
)
from wire.recorded import FROM_LINUX

LIMIT = 100
SOURCES = tuple(f"10.9.0.{number}" for number in range(1, 9))
SEEDS = [
    *FROM_LINUX,
    *(
        build_group_message(GroupMessage(host, content))
        for host, content in (
            ("10.0.0.1", GroupQuery(3, None, (), 10.0, interval=125.0)),
            ("10.0.0.1", GroupQuery(3, "239.1.2.3", SOURCES, 1.0, interval=125.0)),
            ("10.0.0.1", GroupQuery(2, "239.1.2.3", (), 1.0)),
            ("10.0.0.7", GroupReport(2, (GroupRecord(RecordKind.IS_EXCLUDE, "239.1.2.3"),))),
            ("10.0.0.7", GroupReport(2, (GroupRecord(RecordKind.TO_INCLUDE, "239.1.2.3"),))),
            ("10.0.0.8", GroupReport(3, tuple(GroupRecord(kind, "239.1.2.3", SOURCES) for kind in RecordKind))),
            ("fe80::1", GroupQuery(2, None, (), 10.0, interval=125.0)),
            ("fe80::1", GroupQuery(1, "ff15::1:2", (), 1.0)),
            ("fe80::7", GroupReport(1, (GroupRecord(RecordKind.IS_EXCLUDE, "ff15::1:2"),))),
            ("fe80::8", GroupReport(2, tuple(GroupRecord(kind, "ff15::1:2", ("fd00::9",)) for kind in RecordKind))),
        )
    ),
]


def mutated(random: Random) -> bytes:
    """Return a seed with a few other bytes, cut or longer at times, with a right checksum nine times of ten."""
    packet = bytearray(random.choice(SEEDS))
    version, start = packet[0] >> 4, 24 if packet[0] >> 4 == 4 else 48
    for _ in range(random.randrange(1, 4)):
        packet[random.randrange(len(packet))] = random.choice([0, 1, 2, 8, 255, random.randrange(256)])
    if random.random() < 0.1:
        packet = packet[: random.randrange(len(packet))] + random.randbytes(random.randrange(9))
    if random.random() < 0.9 and len(packet) > start + 4:
        packet[start + 2 : start + 4] = b"\0\0"
        right = internet_checksum(bytes(packet[start:]))
        if version == 6:
            addresses = address_text(bytes(packet[8:24])), address_text(bytes(packet[24:40]))
            right = upper_layer_checksum(*addresses, ICMPV6, bytes(packet[start:]))
        packet[start + 2 : start + 4] = pack("!H", right)
    return bytes(packet)


def check(count: int, seconds: float, seed: int = 1) -> tuple[int, int]:
    """Run mutations for so many seconds, up to `count`; return how many, and how many were messages."""
    random, done, understood, now = Random(seed), 0, 0, 0.0
    links = {4: Link(LIMIT), 6: Link(LIMIT)}
    queriers = {
        4: LinkQuerier("10.0.0.5", QuerierSettings(3), now, LIMIT),
        6: LinkQuerier("fe80::5", QuerierSettings(2), now, LIMIT),
    }
    deadline = time.monotonic() + seconds
    while done < count and time.monotonic() < deadline:
        done += 1
        now += random.random() / 10
        message = parse_group_message(mutated(random))
        if message is None:
            continue
        understood += 1
        version = 6 if ":" in message.host else 4
        links[version].take(now, message)
        for query in queriers[version].step(now, message).queries:
            assert parse_group_message(build_group_message(GroupMessage(queriers[version].address, query)))
        for link in (links[version], queriers[version].link):
            assert sum(1 + len(member.sources) for member in link.members.values()) <= LIMIT
            assert len(link._queue) <= 4 * LIMIT + 64
            assert len(link._due) <= 2 * LIMIT
        assert len(queriers[version]._searches) <= PENDING
    return done, understood


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--count", type=int, default=1_000_000)
    parser.add_argument("--seed", type=int, default=1)
    given = parser.parse_args()
    began = time.monotonic()
    done, understood = check(given.count, float("inf"), given.seed)
    seconds = time.monotonic() - began
    print(f"{done:,} mutations, {understood:,} of them messages, {seconds:.0f} s: no exception, within the bounds")
