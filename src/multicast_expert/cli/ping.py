"""`mcast ping`: unicast and multicast beside each other, to one host or between many, and what that means."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Sequence
from dataclasses import replace
from typing import Annotated

from multicast_expert.cli import terminal
from multicast_expert.cli.interruption import end_with_reader, until_interrupted
from multicast_expert.cli.parameters import (
    JsonOption,
    Parameter,
    UsageError,
    command,
    pairs,
    seconds,
    some_seconds,
    whole,
)
from multicast_expert.cli.ping_run import HERE, Run
from multicast_expert.cli.render.ping import finding_lines, summary_object
from multicast_expert.cli.render.text import Line
from multicast_expert.core.addresses import IPAddress, parse_group
from multicast_expert.core.errors import MulticastExpertError
from multicast_expert.ping.client import Pinging, resolve, verdict_of, wish_for
from multicast_expert.ping.sweep import sweep
from multicast_expert.ping.verdict import Finding
from multicast_expert.ping.wish import LARGEST

_FASTEST = 0.001
_FLOOD = 0.01
_SWEEP_FIRST = 3
"""Queries before the first size, so that the tree is set up."""


def _interval(text: str) -> float:
    value = seconds(text)
    if value < _FASTEST:
        raise ValueError(f"{text!r} is less than {_FASTEST} seconds.")
    return value


@command(
    """
    HOST runs `mcast pong`, or omping or ssmpingd. Each query gets two answers, by unicast and by multicast, and a line
    shows both. At the end come the numbers for each way, and the verdict in words. `mcast pong` also pings this host,
    which shows the other direction. With several hosts all pairs are measured; the same list, with the own address in
    it, may be given on every host.

    The time until the first multicast answer, in which a network sets up its tree, is shown and is no loss. Ctrl-\\\\
    shows the summary so far. Exit status: 0 all were heard, 1 some were lost, 2 usage, 3 nothing could be told.
    """,
    ("mcast ping 10.0.0.2 -c 5", "Five queries"),
    ("mcast ping 10.0.0.2 239.1.2.3 --for 600 -q", "One group, for ten minutes: long enough for switches to forget"),
    ("mcast ping 10.0.0.2 10.0.0.3 10.0.0.4 -c 10", "All pairs of these hosts, as a table"),
    excludes=("--ssm --asm", "-4 -6", *pairs("--sweep", "-c -i -s -f -q -D --for -W --no-doctor --json")),
)
def run(
    texts: Annotated[Sequence[str], Parameter("HOST...", "Names or addresses, and at most one group.")],
    count: Annotated[int | None, Parameter("-c, --count N", "Stop after N queries to each host.", whole(1))] = None,
    interval: Annotated[
        float | None, Parameter("-i, --interval SECONDS", "Between two queries (default 1).", _interval)
    ] = None,
    iface: Annotated[str | None, Parameter("-I, --interface IFACE", "Use only it.", values="interface")] = None,
    ssm: Annotated[bool, Parameter("--ssm", "Receive from the host only; usual without a group.")] = False,
    asm: Annotated[bool, Parameter("--asm", "Receive the group from any source.")] = False,
    size: Annotated[int, Parameter("-s, --size N", "Bytes of each answer, at least.", whole(0, LARGEST))] = 0,
    ttl: Annotated[int | None, Parameter("--ttl N", "Hops that this host's datagrams may go.", whole(1, 255))] = None,
    only4: Annotated[bool, Parameter("-4, --ipv4", "IPv4 addresses of names.")] = False,
    only6: Annotated[bool, Parameter("-6, --ipv6", "IPv6 addresses of names.")] = False,
    flood: Annotated[bool, Parameter("-f, --flood", "As fast as answers come; implies -q.")] = False,
    quiet: Annotated[bool, Parameter("-q, --quiet", "Show the summary only.")] = False,
    stamped: Annotated[bool, Parameter("-D", "Begin each line with the time.")] = False,
    sweeps: Annotated[bool, Parameter("--sweep", "Try sizes, hop limits and rates with one host.")] = False,
    duration: Annotated[float | None, Parameter("--for SECONDS", "Stop after so long.", seconds)] = None,
    patience: Annotated[
        float | None,
        Parameter("-W SECONDS", "Give a host up that has not answered for so long (default 5).", some_seconds),
    ] = None,
    doctor: Annotated[
        bool,
        Parameter("--doctor/--no-doctor", "Whether the doctor looks here for what is wrong; it does."),
    ] = True,
    as_json: JsonOption = False,
) -> int:
    """Return 0 all heard, 1 some lost, 3 nothing could be told, 130 if Ctrl-C ended it before anything came."""
    hosts, group = _split(texts)
    if sweeps and len(hosts) > 1:
        raise UsageError("--sweep takes one host.")
    version = 4 if only4 else 6 if only6 else None
    try:
        names = asyncio.run(_resolved(hosts, version))
    except MulticastExpertError as error:
        return _told_nothing(error, as_json)
    family = next(iter(names)).version
    try:
        wish = wish_for(family, group, True if ssm else False if asm else None)
    except MulticastExpertError as error:
        raise UsageError(str(error)) from None
    if sweeps:
        wish = replace(wish, interval=0.1, count=_SWEEP_FIRST)
    else:
        wish = replace(wish, interval=interval or (_FLOOD if flood else 1.0), count=count, size=size, flood=flood)
    try:
        if sweeps:
            (name,) = names.values()
            return asyncio.run(_sweep(Pinging(names, wish, iface=iface, ttl=ttl, measures=False), name))
        work = Run(names, wish, iface, ttl, 5.0 if patience is None else patience, duration)
    except MulticastExpertError as error:
        return _told_nothing(error, as_json)
    work.asks_doctor = doctor
    work.quiet, work.stamped, work.as_json = quiet or flood, stamped, as_json
    end_with_reader()
    terminal.silence_log()
    interrupted = until_interrupted(lambda: asyncio.run(work.run()))
    if interrupted:
        terminal.end_line()
    return work.finish(interrupted)


def _told_nothing(error: MulticastExpertError, as_json: bool) -> int:
    terminal.complain(error)
    if as_json:
        terminal.write_json(summary_object({}, (), [Finding("unknown", str(error))], 3))
        terminal.flush()
    return 3


async def _sweep(pinging: Pinging, name: str) -> int:
    """Show what came of each size and rate; return the exit status."""
    found: list[Finding] = []
    tried = 0
    async with pinging:
        async for what, trial in sweep(pinging, found):
            tried += 1
            text = f"unicast {trial.unicast} of {trial.sent}, multicast {trial.multicast} of {trial.sent}"
            terminal.show_lines([Line(f"{name}: {what}: ", (text, "" if trial.multicast else "red"))], sys.stdout)
            terminal.flush()
    if not tried:
        found = verdict_of(pinging, {None: HERE, **dict.fromkeys(pinging.hosts, name)})
    good = Finding("works", "all sizes and rates arrive by multicast", is_bad=False)
    bad = [each for each in found if each.is_bad]
    shown = found if bad or not tried else [good, *found]
    terminal.show_lines([line for each in shown for line in finding_lines(each)], sys.stdout)
    return (1 if bad else 0) if tried else 3


def _split(texts: Sequence[str]) -> tuple[list[str], str | None]:
    """Return the hosts, and the group if there is one."""
    groups = []
    for text in texts:
        for version in (4, 6):
            try:
                groups.append((text, str(parse_group(text, version))))
            except MulticastExpertError:
                continue
    hosts = [text for text in dict.fromkeys(texts) if text not in dict(groups)]
    if len(groups) > 1 or not hosts:
        raise UsageError("Name one host or more, and at most one group.")
    return hosts, groups[0][1] if groups else None


async def _resolved(hosts: Sequence[str], version: int | None) -> dict[IPAddress, str]:
    """Return the hosts' addresses with the names to show; UsageError if they differ in their version of IP."""
    names: dict[IPAddress, str] = {}
    for host in hosts:
        first, *others = await resolve(host, version)
        if others:
            terminal.tell(f"mcast: {host} has {len(others) + 1} addresses; {first} is pinged")
        names.setdefault(first, host)
        known = next(iter(names)).version
        if first.version != known:
            raise UsageError(f"{host} is IPv{first.version}, and the first host IPv{known}: ping them apart.")
    return names
