"""`mcast record`: writes what receivers get, or the frames of the wire, to files that Wireshark reads."""

from __future__ import annotations

import re
from collections.abc import Sequence
from contextlib import ExitStack, closing, suppress
from pathlib import Path
from time import monotonic
from typing import Annotated, Any

from multicast_expert.cli import terminal
from multicast_expert.cli.interruption import STATUS, end_with_reader, until_interrupted
from multicast_expert.cli.parameters import (
    InterfacesOption,
    JsonOption,
    Parameter,
    UsageError,
    WaitOption,
    command,
    read_endpoints,
    seconds,
    whole,
)
from multicast_expert.cli.receivers import allow_descriptors, described, open_to, tell_what_is_missing
from multicast_expert.cli.render.text import binary_size, counted
from multicast_expert.core.endpoints import Endpoint, parse_endpoints
from multicast_expert.core.errors import MulticastExpertError
from multicast_expert.observe.source import FrameSource
from multicast_expert.recording.blocks import Blocks
from multicast_expert.recording.files import Files, Limits
from multicast_expert.recording.recorder import Recorder, capturing, receiving
from multicast_expert.sockets.receiver import McastRxSocket

LEAST_SIZE = 1 << 20
SPARE = 64 << 20
"""Bytes of the disk that usually stay free."""
RING = 64 << 20
"""Bytes of frames that may wait."""
DISCARD = 9
"""A port that nothing is sent to (RFC 863): who joins with it gets no datagrams."""
_SIZE = re.compile(r"(\d{1,15}(?:\.\d{1,15})?)([kmgt]?)(i?)b?", re.IGNORECASE | re.ASCII)
_POWERS = ["", "k", "m", "g", "t"]


def read_size(text: str) -> int:
    """Return the bytes that `100MB`, `1GiB` or `1000000` means; ValueError for any other text."""
    found = _SIZE.fullmatch(text)
    if found is None:
        raise ValueError(f"{text!r} is not a size such as 100MB or 2GiB.")
    return int(float(found[1]) * (1024 if found[3] else 1000) ** _POWERS.index(found[2].lower()))


def _file_size(text: str) -> int:
    if (size := read_size(text)) < LEAST_SIZE:
        raise ValueError("a file of a recording has at least 1 MiB.")
    return size


def _interval(text: str) -> float:
    if (interval := seconds(text)) < 1:
        raise ValueError("a file of a recording has at least one second.")
    return interval


@command(
    """
    It joins the groups and writes each datagram as a packet of pcapng, with its interface and the time at which the
    kernel received it, until Ctrl-C, -c or --for ends it. Wireshark, tshark and tcpdump read the file, `mcast replay`
    sends it again, and multicast_expert.recording reads it in a program. At the end the file says what the kernel had
    no room for.

    --wire records the frames as they are on the wire, with their Ethernet headers, and IGMP and MLD (Linux, as root);
    without an endpoint, those of all groups. With --every or --size there are several files, each with a number and its
    time in its name.
    """,
    ("mcast record day.pcapng 239.1.2.3:5000", "One group, until Ctrl-C"),
    ("mcast record feed.pcapng 239.1.1.1+20:5000 --every 3600 --keep 24", "20 groups, the last 24 hours"),
    ("mcast record --wire all.pcapng -i eth0 --for 60", "All multicast on the wire of eth0, for a minute"),
    excludes=("--wire --wait", "--wire --receive-buffer"),
    needs=("--keep --every --size", "--all-groups --wire"),
)
def run(
    file: Annotated[str, Parameter("FILE", "The file to write; it is replaced. -: standard output.", values="file")],
    texts: Annotated[Sequence[str], Parameter("ENDPOINT...", "group:port; several, ranges.", values="endpoint")] = (),
    ifaces: InterfacesOption = (),
    wire: Annotated[bool, Parameter("--wire", "Record the frames on the wire; needs root.")] = False,
    all_groups: Annotated[
        bool, Parameter("--all-groups", "With --wire, let network cards pass all groups (allmulti) meanwhile.")
    ] = False,
    number: Annotated[int | None, Parameter("-c, --count N", "Stop after N datagrams or frames.", whole(1))] = None,
    duration: Annotated[float | None, Parameter("--for SECONDS", "Stop after so many seconds.", seconds)] = None,
    every: Annotated[
        float | None, Parameter("--every SECONDS", "Begin the next file after so many seconds.", _interval)
    ] = None,
    size: Annotated[
        int | None, Parameter("--size SIZE", "Begin the next file before this one is longer, such as 1GB.", _file_size)
    ] = None,
    keep: Annotated[int | None, Parameter("--keep N", "Delete the oldest of more than N files.", whole(1))] = None,
    spare: Annotated[
        int, Parameter("--spare SIZE", "Stop when less of the disk is free, usually 64MiB.", read_size)
    ] = SPARE,
    comment: Annotated[str, Parameter("--comment TEXT", "A comment for the head of each file.")] = "",
    buffer: Annotated[
        int | None,
        Parameter("--receive-buffer BYTES", "Of each socket; usually the largest there is.", whole(1, 0x3FFFFFFF)),
    ] = None,
    wait: WaitOption = False,
    as_json: JsonOption = False,
) -> int:
    """Return 0, 1 if nothing came, fewer than -c, or the disk is full, 130 if Ctrl-C ended it."""
    limits = Limits(every, size, keep, spare)
    if file == "-" and as_json:
        raise UsageError("--json and - both write to standard output.")
    if file == "-" and limits.is_divided:
        raise UsageError("--every and --size need a name for their files, not -.")
    if not texts and not wire:
        with suppress(MulticastExpertError):
            parse_endpoints(file)
            raise UsageError(f"the first argument is the file to write: mcast record FILE {file}.")
        raise UsageError("name the groups to record, or add --wire to record all that is on the wire.")
    endpoints = read_endpoints(texts, needs_port=not wire)
    with ExitStack() as opened:
        if wire:
            source = opened.enter_context(
                closing(FrameSource(ifaces or None, udp=True, buffer=RING, ring=RING, all_groups=all_groups))
            )
            # Joined, so that the network brings them; the frames come past the sockets.
            endpoints_to_join = [each._replace(port=DISCARD) for each in endpoints]
            receivers = _opened(endpoints_to_join, ifaces, buffer, wait, opened)
            place = f"the wire of {', '.join(each.display_name for each in source.interfaces)}"
        else:
            receivers = _opened(endpoints, ifaces, buffer, wait, opened)
            place = described(receivers)
        files = _files(None if file == "-" else Path(file), limits)
        blocks = Blocks(files, limits, comment)
        step = capturing(source, blocks, endpoints, number) if wire else receiving(receivers, blocks, number)
        recorder = Recorder(blocks, step, number, duration)

        def follow() -> None:
            terminal.tell(f"recording {place}")
            if file == "-":
                end_with_reader()
            tell_what_is_missing(receivers)
            _follow(recorder, blocks)

        interrupted = until_interrupted(follow)
        recorder.stop()
        if interrupted:
            terminal.end_line()
        if recorder.failure is not None:
            raise recorder.failure
    _tell_result(blocks, "frame" if wire else "datagram", as_json)
    if files.error is not None:
        terminal.tell(f"mcast: the recording ended early: {_reason(files.error)}")
    failed = files.error is not None or blocks.kept < (number or 1)
    return STATUS if interrupted else int(failed)


def _opened(
    endpoints: Sequence[Endpoint], ifaces: Sequence[str], buffer: int | None, wait: bool, opened: ExitStack
) -> list[McastRxSocket]:
    receivers = list(open_to(endpoints, ifaces, (), (), buffer, wait, traffic_class=True))
    allow_descriptors(receivers)
    for receiver in receivers:
        opened.enter_context(receiver)
    return receivers


def _files(path: Path | None, limits: Limits) -> Files:
    try:
        return Files(path, limits)
    except OSError as error:
        raise MulticastExpertError(f"Cannot write {path or 'to standard output'}: {error.strerror}.") from error


def _follow(recorder: Recorder, blocks: Blocks) -> None:
    """Show how far it is until it ends."""
    progress, start = terminal.Progress(), monotonic()
    try:
        while not recorder.wait(0.5):
            done = f"{counted(blocks.packets, 'packet')}, {binary_size(blocks.files.bytes)}"
            progress.show(f"{done} in {monotonic() - start:,.0f} s; Ctrl-C ends it")
    finally:
        progress.show("")


def _reason(error: OSError) -> str:
    return error.strerror or str(error)


def _tell_result(blocks: Blocks, noun: str, as_json: bool) -> None:
    files = blocks.files
    dropped = sum(blocks.dropped.values()) if blocks.dropped else None
    if as_json:
        value: dict[str, Any] = {"packets": blocks.kept, "bytes": files.bytes, "kernel_drops": dropped}
        value["files"] = [str(each) for each in files.names]
        terminal.write_json(value | {"error": None if files.error is None else _reason(files.error)})
    if not files.names:
        place = "to standard output"
    elif files.begun == 1:
        place = f"in {files.names[0]}"
    else:
        place = f"in {files.begun:,} files, the last {files.names[-1]}"
    terminal.tell(f"{counted(blocks.kept, noun)}, {counted(files.bytes, 'byte')} {place}")
    if dropped:
        terminal.tell(f"{counted(dropped, noun)} more found no room: the kernel dropped them", "red")
