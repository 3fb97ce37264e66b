"""`mcast replay`: sends the datagrams of a recording again."""

from __future__ import annotations

import gc
from collections.abc import Sequence
from contextlib import ExitStack, closing, suppress
from datetime import datetime
from itertools import islice
from pathlib import Path
from typing import Annotated

from multicast_expert.cli import terminal
from multicast_expert.cli.interruption import STATUS, until_interrupted
from multicast_expert.cli.parameters import (
    InterfacesOption,
    JsonOption,
    LoopbackOption,
    Parameter,
    UsageError,
    command,
    seconds,
    whole,
)
from multicast_expert.cli.render.text import counted
from multicast_expert.cli.send import DSCP, read_dscp
from multicast_expert.core.endpoints import Endpoint, parse_endpoint
from multicast_expert.core.errors import MulticastExpertError
from multicast_expert.recording.audience import Members
from multicast_expert.recording.departures import Score
from multicast_expert.recording.recording import Recording
from multicast_expert.recording.replayer import LATE, Replayer

BAR = 24
"""Columns of the progress bar."""
SLOWEST = 1e-6
"""The lowest speed: a second takes 11 days."""
LOOKED_AT = 256
"""How many datagrams are read before the first leaves, to see whether --map names any of them."""


def _speed(text: str) -> float | None:
    if text == "max":
        return None
    with suppress(ValueError):
        if (speed := seconds(text)) >= SLOWEST:
            return speed
    raise ValueError(f"{text!r} is no speed: a number from {SLOWEST:f} on, or max.")


def _moment(text: str) -> float | datetime:
    try:
        float(text)
    except ValueError:
        pass
    else:
        return seconds(text)
    try:
        return datetime.fromisoformat(text).astimezone()
    except (ValueError, OverflowError):
        raise ValueError(f"{text!r} is neither seconds nor a time such as 2026-05-01T12:00:00.") from None


def _map(text: str) -> tuple[Endpoint, Endpoint]:
    old, _, new = text.partition("=")
    try:
        pair = parse_endpoint(old, any_address=True), parse_endpoint(new)
    except MulticastExpertError as error:
        raise UsageError(f"--map {text}: {error}") from None
    if any(each.source or each.iface for each in pair):
        raise UsageError(f"--map {text}: it takes groups and ports only. Choose the interface with -i.")
    return pair


@command(
    """
    Groups, ports, hop limits and DSCP are those of the recording, and so are the times between datagrams. The file is
    one of mcast record, or pcap or pcapng of another program; datagrams to single hosts are skipped unless --map gives
    them a group. They leave from the interface of the default route, or without one that of a route for the group,
    unless -i names another one. It needs no privileges.

    With --while-joined it waits until a host has joined a group of the recording, and sends to groups with members
    only; that needs Linux and root. Ctrl-Z pauses it, and fg lets it go on. At the end it reports how punctual it was.
    """,
    ("mcast replay day.pcapng -i eth0", "As it was recorded"),
    ("mcast replay day.pcapng --from 60 --to 90 --loop", "Half a minute of it, again and again"),
    ("mcast replay feed.pcap --map 239.1.2.3=239.9.9.9 --speed 2", "To another group, twice as fast"),
)
def run(
    file: Annotated[str, Parameter("FILE", "A recording: pcapng or pcap.", values="file")],
    speed: Annotated[
        float | None, Parameter("--speed FACTOR", "2 is twice as fast; max as fast as it goes.", _speed, ("max",))
    ] = 1.0,
    loop: Annotated[bool, Parameter("--loop", "Begin again at the end, until Ctrl-C.")] = False,
    begin: Annotated[
        float | datetime | None,
        Parameter("--from TIME", "Begin there: seconds from the start, or 2026-05-01T12:00:00.", _moment),
    ] = None,
    end: Annotated[float | datetime | None, Parameter("--to TIME", "End there, likewise.", _moment)] = None,
    maps: Annotated[
        Sequence[tuple[Endpoint, Endpoint]],
        Parameter("--map OLD=NEW...", "Send to NEW what went to OLD, group or group:port; repeatable.", _map),
    ] = (),
    ifaces: InterfacesOption = (),
    ttl: Annotated[
        int | None, Parameter("-t, --ttl HOPS", "How many hops they may go, instead of as recorded.", whole(0, 255))
    ] = None,
    dscp: Annotated[
        int | None, Parameter("--dscp DSCP", "Their priority, instead of as recorded.", read_dscp, tuple(DSCP))
    ] = None,
    while_joined: Annotated[bool, Parameter("--while-joined", "Send only while a host has joined.")] = False,
    duration: Annotated[float | None, Parameter("--for SECONDS", "Stop after so many seconds.", seconds)] = None,
    loopback: LoopbackOption = True,
    as_json: JsonOption = False,
) -> int:
    """Return 0 if all were sent, 1 if some failed, there were none, or a --map fits none, 130 after Ctrl-C."""
    if file == "-" or Path(file).is_fifo():
        raise UsageError("a recording is read more than once, so no pipe can bring it: write it to a file first.")
    score = Score(speed, begin, end, loop, tuple(maps), ttl, dscp)
    with ExitStack() as opened:
        try:
            recording = opened.enter_context(Recording(file))
        except OSError as error:
            raise MulticastExpertError(f"Cannot read {file}: {error.strerror}.") from error
        for old in _never_first(recording, score):
            terminal.tell(f"none of the first datagrams goes to {old}, which --map names", "red")
        members = Members(ifaces or None, _groups(recording, score)) if while_joined else None
        if members is not None:
            opened.enter_context(closing(members))
        replayer = Replayer(score, ifaces, loopback, members)
        progress = terminal.Progress()

        def show() -> None:
            waiting = " (waiting for a member)" if members is not None and not members.has_any() else ""
            part = recording.position * replayer.reached / (recording.read_bytes or 1)
            done = round(BAR * part)
            spent = f"{counted(replayer.sent, 'datagram')} in {replayer.elapsed:,.0f} s{waiting}"
            # The bar comes last: a narrow terminal cuts that.
            progress.show(f"{100 * part:3.0f} %  {spent}  [{'#' * done}{'.' * (BAR - done)}]")

        # The collector would look at all that is read ahead, in the middle of the schedule.
        gc.disable()
        try:
            interrupted = until_interrupted(lambda: replayer.run(score.departures(recording), duration, show))
        finally:
            gc.enable()
            progress.show("")
    if interrupted:
        terminal.end_line()
    _tell_result(replayer, score, as_json)
    if score.is_read and not score.found:
        terminal.tell(_why_nothing(recording, score))
    # What --for or Ctrl-C left unread may go there.
    unmapped = score.unmapped if score.is_read else []
    for old in unmapped:
        terminal.tell(f"no datagram of {_part(recording, score)} goes to {old}, which --map names", "red")
    return STATUS if interrupted else int(not replayer.sent or replayer.failed > 0 or bool(unmapped))


def _part(recording: Recording, score: Score) -> str:
    is_all = score.begin is None and score.end is None
    return str(recording.path) if is_all else f"that part of {recording.path}"


def _why_nothing(recording: Recording, score: Score) -> str:
    if score.begin is None and score.end is None:
        return f"there is no datagram in {recording.path}"
    end_ns = recording.start_ns + recording.read_ns
    is_behind = score.begin is not None and recording.time_ns(score.begin) > end_ns
    ends = f": it ends {recording.read_ns / 1e9:,.1f} s after its beginning" if is_behind else ""
    return f"nothing of {recording.path} is within that time{ends}"


def _never_first(recording: Recording, score: Score) -> list[Endpoint]:
    """Return what --map names and the first datagrams do not go to: it may be misspelt, and they go elsewhere then."""
    if not score.maps:
        return []
    first = Score(None, score.begin, score.end, maps=score.maps)
    # What comes before the damage of a file is sent.
    with suppress(MulticastExpertError):
        for _ in islice(first.departures(recording), LOOKED_AT):
            pass
    return first.unmapped


def _groups(recording: Recording, score: Score) -> set[str]:
    """Return the groups that the recording is sent to; it reads all of it."""
    once = Score(None, score.begin, score.end, maps=score.maps)
    return {each.address[0] for each in once.departures(recording)}


def _tell_result(replayer: Replayer, score: Score, as_json: bool) -> None:
    punctuality, spent = replayer.punctuality, replayer.elapsed - replayer.paused
    near, longest = punctuality.percentile(99), punctuality.longest
    if as_json:
        terminal.write_json(
            {
                "datagrams": replayer.sent,
                "bytes": replayer.bytes,
                "seconds": round(spent, 6),
                "paused_seconds": round(replayer.paused, 6),
                "failed": replayer.failed,
                "skipped": dict(score.skipped),
                "late": punctuality.late,
                "late_p99_us": round(near * 1e6, 1),
                "late_max_us": round(longest * 1e6, 1),
            }
        )
    terminal.tell(f"{counted(replayer.sent, 'datagram')}, {counted(replayer.bytes, 'byte')} in {spent:,.3f} s")
    if punctuality.count:
        terminal.tell(
            f"99 % left within {1e3 * near:.3f} ms of their time, the latest within {1e3 * longest:.3f} ms, "
            f"{punctuality.late:,} more than {1e3 * LATE:g} ms late",
            "red" if punctuality.late else "",
        )
    if replayer.failed:
        terminal.tell(f"{counted(replayer.failed, 'datagram')} could not be sent", "red")
    for reason, count in score.skipped.items():
        terminal.tell(f"skipped {counted(count, 'datagram')} {reason}")
