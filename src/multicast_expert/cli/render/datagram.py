"""Received datagrams as lines, as hexadecimal dumps and as JSON. Pure: touches no OS."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import Any

from multicast_expert.cli.render.text import counted, host_and_port, printable
from multicast_expert.datagram import Datagram, ReceiveStats

ROW = 16
"""Bytes in a row of a dump."""


def datagram_line(datagram: Datagram, port: int, time: str) -> str:
    """Return one line: when, to which group and port, on which interface, from whom, and the payload."""
    payload = printable(datagram.data)
    return headline(datagram, port, time) + (f": {payload}" if payload else "")


def headline(datagram: Datagram, port: int, time: str) -> str:
    """Return the line without the payload."""
    interface = f"%{datagram.interface_name}" if datagram.interface_name else ""
    sender = host_and_port(datagram.sender[0], datagram.sender[1])
    hops = "" if datagram.hop_limit is None else f" ttl {datagram.hop_limit},"
    length = counted(len(datagram.data), "byte") + (" (cut)" if datagram.truncated else "")
    return f"{time} {host_and_port(datagram.group or '?', port)}{interface} from {sender},{hops} {length}"


def hex_dump(payload: bytes) -> Iterator[str]:
    """Yield rows of offset, bytes and ASCII characters."""
    for start in range(0, len(payload), ROW):
        row = payload[start : start + ROW]
        text = "".join(chr(byte) if 0x20 <= byte < 0x7F else "." for byte in row)
        yield f"  {start:04x}  {row.hex(' '):<{ROW * 3 - 1}}  {text}"


def summary(sizes: Sequence[int], seconds: float, stats: Iterable[ReceiveStats]) -> str:
    """Return how much was shown in how many seconds, and what was lost: loss is never silent."""
    counts = list(stats)
    dropped = sum(count.kernel_drops or 0 for count in counts)
    cut = sum(count.truncated for count in counts)
    parts = [f"{counted(len(sizes), 'datagram')}, {counted(sum(sizes), 'byte')} in {seconds:.1f} s"]
    if dropped:
        parts.append(f"{dropped:,} more lost, because the receive buffer was full")
    if cut:
        parts.append(f"{cut:,} cut")
    return "; ".join(parts)


def datagram_object(datagram: Datagram, port: int, time: str) -> dict[str, Any]:
    """Return the JSON object of a datagram: `data` in hexadecimal, `text` where it is UTF-8 (else null)."""
    try:
        text = datagram.data.decode()
    except UnicodeDecodeError:
        text = None
    return {
        "time": time,
        "group": datagram.group,
        "port": port,
        "interface": datagram.interface_name,
        "sender": datagram.sender[0],
        "sender_port": datagram.sender[1],
        "hop_limit": datagram.hop_limit,
        "length": len(datagram.data),
        "truncated": datagram.truncated,
        "text": text,
        "data": datagram.data.hex(),
    }
