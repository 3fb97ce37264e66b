"""`mcast doctor`: find out why the datagrams of a group do not arrive. Joins and listens, and changes nothing."""

from __future__ import annotations

import shlex
import sys
from collections.abc import Callable
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Annotated, TextIO

from multicast_expert.cli import terminal
from multicast_expert.cli.interruption import stopped_by_ctrl_c
from multicast_expert.cli.parameters import (
    InterfaceOption,
    JsonOption,
    Parameter,
    UsageError,
    command,
    one_interface,
    pairs,
    seconds,
)
from multicast_expert.cli.parsing import meant
from multicast_expert.cli.render.doctor import headline, page_lines, report_lines
from multicast_expert.cli.render.text import Line, counted
from multicast_expert.cli.rounds import watch
from multicast_expert.core.addresses import parse_source
from multicast_expert.core.endpoints import Endpoint, parse_endpoint
from multicast_expert.core.errors import MulticastExpertError
from multicast_expert.doctor.collector import LISTEN, collect
from multicast_expert.doctor.facts import Facts
from multicast_expert.doctor.judgement import judge
from multicast_expert.doctor.pages import PAGES
from multicast_expert.doctor.report import Report
from multicast_expert.doctor.saved import LONGEST, facts_from_text, facts_to_text

EXIT_STATUS = {"ok": 0, "problem": 1, "unknown": 3}
COULD_NOT_TELL = EXIT_STATUS["unknown"]
# Characters in a line of a page, also if the output goes to a pipe.
PAGE_WIDTH = 80
# As a file name: standard input or output.
STREAM = "-"


def _read_target(text: str) -> Endpoint:
    """Return the endpoint; if its address is not a group, the doctor reports that."""
    try:
        return parse_endpoint(text, any_address=True)
    except MulticastExpertError as error:
        raise UsageError(str(error)) from None


@command(
    """
    It joins, listens, and reads interfaces, routes, filters and counters of this host. The report names the most likely
    cause, its evidence, and the command that cures it. It changes nothing. As root it sees more. Ctrl-C ends the
    listening, and the report is about what was seen by then.

    With --watch it asks again and again, in a line each, until datagrams arrive and nothing is wrong.

    Exit status 0: datagrams arrive; 1: a problem was found; 2: invalid command line; 3: the cause is not known.
    """,
    ("mcast doctor 239.1.2.3:5000%eth0", "Why nothing of this stream arrives"),
    ("mcast doctor 239.1.2.3:5000 --watch", "A line for each round, until it is healed"),
    ("mcast doctor --explain reverse-path-filter", "What a cause means, and how to see it by hand"),
    ("mcast doctor 239.1.2.3:5000 --save facts.json", "Facts for somebody else, to judge with --from"),
    excludes=(
        *pairs("--from", "ENDPOINT -i --source --listen --watch"),
        *pairs("--explain", "ENDPOINT -i --source --listen --json -v --watch --save --from"),
        "--watch --save",
    ),
)
def run(
    endpoint: Annotated[
        Endpoint | None, Parameter("ENDPOINT", "group[:port][%interface]", _read_target, "endpoint")
    ] = None,
    iface: InterfaceOption = None,
    source: Annotated[str | None, Parameter("--source ADDR", "Only from this host.")] = None,
    listen: Annotated[
        float | None, Parameter("--listen, --for SECONDS", f"How long; usually {LISTEN:g} s.", seconds)
    ] = None,
    as_json: JsonOption = False,
    verbose: Annotated[bool, Parameter("-v, --verbose", "List what is fine, and what was not read.")] = False,
    watching: Annotated[bool, Parameter("--watch", "Repeat until it is healed.")] = False,
    save: Annotated[
        str | None, Parameter("--save FILE", "Save the facts; - is standard output.", values="file")
    ] = None,
    saved: Annotated[
        str | None, Parameter("--from FILE", "Judge saved facts, from any host; - is standard input.", values="file")
    ] = None,
    explained: Annotated[str | None, Parameter("--explain CHECK", "Explain a cause.", values=tuple(PAGES))] = None,
) -> int:
    """Return 0 if datagrams arrive, 1 if a problem was found, 3 if not known, 130 if Ctrl-C ends --watch."""
    if explained is not None:
        return _explain(explained)
    if as_json and save == STREAM:
        raise UsageError("--json and --save - both write to standard output; save to a file.")
    if saved is not None:
        find = partial(_read, saved)
    elif endpoint is None:
        raise UsageError("Missing argument 'ENDPOINT'. (Only --from FILE and --explain CHECK need none.)")
    else:
        duration = LISTEN if listen is None else listen
        chosen = one_interface(endpoint, iface), _one_source(endpoint, source)
        find = partial(_collect, endpoint, *chosen, duration)
    try:
        with stopped_by_ctrl_c() as stopped:
            if watching:
                return watch(partial(find, stopped), stopped, as_json, verbose)
            return _judge(partial(find, stopped), as_json, verbose, save)
    except BrokenPipeError:
        raise  # the reader of --watch has seen enough
    except (MulticastExpertError, OSError) as error:
        terminal.complain(error)
        return COULD_NOT_TELL


def _judge(find: Callable[[], Facts], as_json: bool, verbose: bool, save: str | None) -> int:
    """Find the facts, show the report, save the facts, and return the exit status."""
    file = None if save in (None, STREAM) else Path(str(save))
    if file is not None:
        # A file that cannot be written fails now, not after the listening.
        file.open("ab").close()
    facts = find()
    report = judge(facts)
    try:
        _show(report, facts, as_json, verbose, sys.stderr if save == STREAM else sys.stdout)
        if save == STREAM:
            terminal.put(facts_to_text(facts))
        terminal.flush()
    except BrokenPipeError:
        pass  # the facts are still saved
    if file is not None:
        _save(facts, file)
    return EXIT_STATUS[report.verdict]


# Facts


def _one_source(endpoint: Endpoint, source: str | None) -> str | None:
    """Return the source that the endpoint or --source names. Raises UsageError for two different ones."""
    named = None if endpoint.source is None else str(endpoint.source)
    if source is None:
        return named
    try:
        wanted = parse_source(source)
    except MulticastExpertError as error:
        raise UsageError(str(error)) from None
    version = endpoint.group.version
    if wanted.version != version:
        raise UsageError(f"--source {wanted} is IPv{wanted.version}, and {endpoint.group} is IPv{version}.")
    if named not in (None, str(wanted)):
        raise UsageError(f"{endpoint} names the source {named}, and --source names {wanted}: name one.")
    return str(wanted)


def _collect(
    endpoint: Endpoint, iface: str | None, source: str | None, seconds: float, stopped: Callable[[], bool]
) -> Facts:
    """Collect facts; a line on the terminal shows the progress, and Ctrl-C ends the listening."""
    progress = terminal.Progress()

    def go_on(listened: float, datagrams: int) -> bool:
        progress.show(
            f"listening: {int(listened)} of {seconds:g} s, {counted(datagrams, 'datagram')} (Ctrl-C: report now)"
        )
        return not stopped()

    try:
        return collect(str(endpoint.group), endpoint.port, source, iface, seconds, progress=go_on)
    finally:
        progress.show("")


def _read(name: str, _: Callable[[], bool]) -> Facts:
    """Return the facts in a file; of a longer file only the allowed length is read."""
    if name == STREAM:
        if sys.stdin is None:
            raise MulticastExpertError("Standard input is closed.")
        content = sys.stdin.buffer.read(LONGEST + 1)
    else:
        with Path(name).open("rb") as file:
            content = file.read(LONGEST + 1)
    try:
        return facts_from_text(content)
    except MulticastExpertError as error:
        raise MulticastExpertError(f"{name}: {error}") from None


def _save(facts: Facts, file: Path) -> None:
    try:
        file.write_text(facts_to_text(facts), encoding="ascii")
    except OSError as error:  # a failed write names no file
        raise OSError(error.errno, error.strerror, str(file)) from None
    terminal.tell(f"saved to {file}; to judge it anywhere: mcast doctor --from {shlex.quote(str(file))}")


# Showing


def _show(report: Report, facts: Facts, as_json: bool, verbose: bool, stream: TextIO) -> None:
    if as_json:
        terminal.write_json(report.as_dict(), 2)
        return
    width, height = terminal.size(stream)
    lines = list(report_lines(report, facts, _time_text(facts.time), width, verbose=verbose))
    if len(lines) >= height:
        # The headline has scrolled off the screen.
        lines += [Line(), *headline(report, facts, width)]
    terminal.show_lines(lines, stream)


def _time_text(seconds: float) -> str:
    """Return a time in UTC, which reads the same on every machine."""
    try:
        return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%d %H:%M:%S UTC")
    except (OverflowError, ValueError, OSError):  # saved facts may hold any number
        return "at an unknown time"


def _explain(name: str) -> int:
    if name not in PAGES:
        raise UsageError(f"there is no check {name!r}; the checks are {', '.join(PAGES)}.{meant(name, PAGES)}")
    for line in page_lines(PAGES[name], min(terminal.size(sys.stdout)[0], PAGE_WIDTH)):
        terminal.write(line)
    return 0
