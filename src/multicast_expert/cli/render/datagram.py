"""Received datagrams as lines, as hexadecimal dumps and as JSON. Pure: touches no OS."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, NamedTuple

from multicast_expert.cli.render.text import counted, host_and_port, milliseconds, payload_text
from multicast_expert.core.datagram import Datagram
from multicast_expert.stamp import Stamp

ROW = 16
"""Bytes in a row of a dump."""


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


def datagram_line(arrival: Arrival, time: str) -> str:
    """Return one line: time, group, port, interface, sender and payload."""
    payload = payload_text(arrival.payload)
    return headline(arrival, time) + (f": {payload}" if payload else "")


def headline(arrival: Arrival, time: str) -> str:
    """Return the line without the payload; with number and latency of a stamped datagram."""
    datagram = arrival.datagram
    interface = f"%{datagram.interface_name}" if datagram.interface_name else ""
    sender = host_and_port(datagram.sender[0], datagram.sender[1])
    facts = [] if datagram.hop_limit is None else [f"ttl {datagram.hop_limit}"]
    facts.append(counted(len(datagram.data), "byte") + (" (cut)" if datagram.truncated else ""))
    if arrival.stamp is not None and arrival.latency_ns is not None:
        facts += [f"#{arrival.stamp.number}", milliseconds(arrival.latency_ns)]
    group = host_and_port(datagram.group or "?", arrival.port)
    return f"{time} {group}{interface} from {sender}, {', '.join(facts)}"


def hex_dump(payload: bytes) -> Iterator[str]:
    """Yield rows of offset, bytes and ASCII characters."""
    for start in range(0, len(payload), ROW):
        row = payload[start : start + ROW]
        text = "".join(chr(byte) if 0x20 <= byte < 0x7F else "." for byte in row)
        yield f"  {start:04x}  {row.hex(' '):<{ROW * 3 - 1}}  {text}"


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
