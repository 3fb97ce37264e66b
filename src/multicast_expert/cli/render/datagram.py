"""Received datagrams as lines, as hexadecimal dumps and as JSON. Pure: touches no OS."""

from __future__ import annotations

from collections.abc import Iterator
from functools import lru_cache
from typing import Any, NamedTuple

from multicast_expert.cli.render.text import (
    Line,
    columns,
    counted,
    host_and_port,
    milliseconds,
    payload_text,
    printable,
)
from multicast_expert.core.datagram import Datagram
from multicast_expert.stamp import Stamp

ROW = 16
"""Bytes in a row of a dump."""
SHORT = 32
"""Columns: if a row has fewer left, a payload may take the next one, too."""


class Arrival(NamedTuple):
    """A datagram with its port, time and stamp."""

    datagram: Datagram
    port: int
    """The port that it was sent to."""
    time_ns: int
    """Time of arrival in nanoseconds since 1970, by the kernel where it reports one."""
    stamp: Stamp | None
    """The stamp that `mcast send --stamp` wrote at its head."""
    payload: bytes
    """The bytes behind the stamp; without a stamp, all of them."""

    @property
    def latency_ns(self) -> int | None:
        """Time under way in nanoseconds, by two clocks if it came from another host; None without a stamp."""
        return None if self.stamp is None else self.time_ns - self.stamp.sent_ns


def datagram_line(arrival: Arrival, time: str, room: int | None = None) -> str:
    """Return one printable line: time, group, port, interface, sender and payload.

    Only a payload that is no text is cut to `room` columns.
    """
    group, facts = _head(arrival)
    payload = payload_text(arrival.payload, room, keeps_text=True)
    return f"{time} {group}{facts}: {payload}" if payload else f"{time} {group}{facts}"


def styled_line(arrival: Arrival, time: str, width: int | None) -> Line:
    """Return the same for a terminal, where the payload ends with a row of `width` columns; with None it is whole."""
    group, facts = _head(arrival)
    head = Line((time, "dim"), " ", (group, "bold"), facts + (": " if arrival.payload else ""))
    if width is None:
        return Line(*head.pieces, payload_text(arrival.payload), is_set=True)
    head = head.filled(width)
    room = width - sum(columns(text) for text, _ in head.pieces) % width
    if room < SHORT:
        room += width
    return Line(*head.pieces, payload_text(arrival.payload, room), is_set=True)


def headline(arrival: Arrival, time: str) -> str:
    """Return the line without the payload; with number and latency of a stamped datagram."""
    return f"{time} {''.join(_head(arrival))}"


def _head(arrival: Arrival) -> tuple[str, str]:
    """Return the group, and what follows it before the payload."""
    datagram, port, _, stamp, _ = arrival
    way = datagram.group, port, datagram.interface_name, datagram.sender, datagram.hop_limit
    head = _head_text(*way, len(datagram.data), datagram.truncated)
    if stamp is None:
        return head
    return head[0], f"{head[1]}, #{stamp.number}, {milliseconds(arrival.time_ns - stamp.sent_ns)}"


@lru_cache(4096)
def _head_text(
    group: str | None,
    port: int,
    interface: str | None,
    sender: tuple[Any, ...],
    hop_limit: int | None,
    size: int,
    is_cut: bool,
) -> tuple[str, str]:
    """Return group, sender and size, printable; a stream repeats them in each datagram."""
    place = host_and_port(group or "?", port) + (f"%{interface}" if interface else "")
    hops = "" if hop_limit is None else f"ttl {hop_limit}, "
    sizes = counted(size, "byte") + (" (cut)" if is_cut else "")
    return printable(place), printable(f" from {host_and_port(sender[0], sender[1])}, {hops}{sizes}")


def hex_dump(payload: bytes, room: int = 80) -> Iterator[str]:
    """Yield rows of offset, bytes and ASCII characters; shorter ones where there is no room for 73 columns."""
    count, gap = (ROW, "  ") if room >= ROW * 4 + 9 else (ROW // 2, " ")
    for start in range(0, len(payload), count):
        row = payload[start : start + count]
        text = "".join(chr(byte) if 0x20 <= byte < 0x7F else "." for byte in row)
        yield f"{gap}{start:04x}{gap}{row.hex(' '):<{count * 3 - 1}}{gap}{text}"


def datagram_object(arrival: Arrival, time: str) -> dict[str, Any]:
    """Return the JSON object of a datagram: `data` is all of it in hexadecimal, `text` the payload where it is UTF-8.

    `text` leaves the stamp out, if there is one, and is null if the payload is not UTF-8.
    """
    datagram = arrival.datagram
    try:
        text = arrival.payload.decode()
    except UnicodeDecodeError:
        text = None
    return {
        "time": time,
        "timestamp_ns": datagram.timestamp_ns,
        "group": datagram.group,
        "port": arrival.port,
        "interface": datagram.interface_name,
        "interface_index": datagram.interface_index,
        "sender": datagram.sender[0],
        "sender_port": datagram.sender[1],
        "hop_limit": datagram.hop_limit,
        "dscp": None if datagram.traffic_class is None else datagram.traffic_class >> 2,
        "length": len(datagram.data),
        "truncated": datagram.truncated,
        "stamp": _stamp_object(arrival),
        "text": text,
        "data": datagram.data.hex(),
    }


def _stamp_object(arrival: Arrival) -> dict[str, Any] | None:
    stamp = arrival.stamp
    if stamp is None:
        return None
    return {
        "stream": stamp.stream_text,
        "number": stamp.number,
        "sent_ns": stamp.sent_ns,
        "latency_ns": arrival.latency_ns,
    }
