"""Names that a terminal would obey or cannot show: every command writes them escaped."""

import contextlib
import io
import json
import re
from collections.abc import Iterator
from contextlib import redirect_stderr, redirect_stdout
from ipaddress import IPv4Interface, ip_address
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cli.conftest import Program, Run, on_terminal
from multicast_expert import Datagram, IfaceInfo, MulticastOSError
from multicast_expert.cli import terminal
from multicast_expert.cli.render.datagram import Arrival, datagram_line, datagram_object, headline
from multicast_expert.cli.render.demo import Omission, Probe, Trial, conclusion, omission_lines, trial_lines
from multicast_expert.cli.render.groups import group_lines, group_object, note_lines
from multicast_expert.cli.render.interfaces import interface_lines, interface_object
from multicast_expert.cli.render.measurement import interval_lines, stream_lines
from multicast_expert.cli.render.text import Line, printable
from multicast_expert.observe.meter import Meter
from multicast_expert.stamp import Stamp, stamped
from multicast_expert.system.listings import JoinedGroup, Process, UdpSocket
from multicast_expert.testing import Host, Lab

# As the kernel allows them, and as they are shown.
ODD = {
    "e\x1b[31m": r"e\x1b[31m",
    "\udcff\udcfe": r"\xff\xfe",
    "\u202eabc": r"\u202eabc",
    "[red]x": "[red]x",
    "a\rb\x07\x9b": r"a\rb\x07\x9b",
}
NAMES = pytest.mark.parametrize("name", ODD, ids=list(map(ascii, ODD)))


class Screen(io.StringIO):
    """A terminal."""

    def isatty(self) -> bool:
        """Return True."""
        return True


@contextlib.contextmanager
def written() -> Iterator[tuple[io.StringIO, io.StringIO]]:
    """The lines that leave the program inside the block: data and messages."""
    with redirect_stdout(io.StringIO()) as output, redirect_stderr(io.StringIO()) as messages:
        yield output, messages


def show_everything(name: str, screen: io.StringIO) -> None:
    """Write what the commands write for people, with this name in every place that takes one."""
    iface = IfaceInfo(name, 5, None, [IPv4Interface("10.9.0.1/24")], [], name)
    process = UdpSocket(ip_address("239.1.2.3"), 5000, 1000, 77, 0, (Process(4711, name),))
    joined = JoinedGroup(ip_address("239.1.2.3"), name, 5, 3, 1, sockets=(process,))
    demonstration = Trial(4, name, 5000, 0, (name,), (Probe(name, (0,), 0),))
    datagram = Datagram(b"", (name, 4000), name, 5, name)
    arrival = Arrival(datagram, 5000, 0, None, b"")
    meter = Meter(0)
    meter.take([Datagram(stamped(Stamp(1, 1, 0), b""), (name, 4000), name, 5, name)], 5000, 0)
    terminal.show_lines(interface_lines([iface], iface, None), screen)
    terminal.show_lines(group_lines([joined]), screen)
    terminal.show_lines(trial_lines(demonstration, 160), screen)
    for line in (
        datagram_line(arrival, "noon"),
        headline(arrival, "noon"),
        conclusion(demonstration),
        *omission_lines(Omission(6, name, name)),
        *stream_lines(meter, (), 0),
        *interval_lines(next(meter.end_interval()), 1, 1, 80),
        *note_lines([], [process]),
    ):
        terminal.write(line)
    terminal.tell(f"mcast: {name} came back")
    terminal.complain(OSError(2, "No such file", name))
    terminal.complain(MulticastOSError(19, "join", f"Cannot join on {name}", name, name))


@NAMES
def test_no_line_steers_the_terminal(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever interfaces, processes, hosts and groups are called, every line is printable and shows it escaped."""
    for variable in ("NO_COLOR", "FORCE_COLOR"):
        monkeypatch.delenv(variable, raising=False)
    monkeypatch.setenv("TERM", "dumb")
    screen = Screen()
    with written() as (output, messages):
        show_everything(name, screen)
    lines = [line for stream in (screen, output, messages) for line in stream.getvalue().split("\n")]
    assert [line for line in lines if not line.isprintable()] == []
    assert sum(ODD[name] in line for line in lines) == 18


WRITERS = re.compile(r"\bprint\(|\bstd(?:out|err)\.write|\becho\(|Console\(")


def test_lines_leave_at_one_place() -> None:
    """Only the terminal's own file writes."""
    commands = Path(terminal.__file__).parent
    writing = {
        path.relative_to(commands).as_posix(): len(WRITERS.findall(path.read_text(encoding="utf-8")))
        for path in commands.rglob("*.py")
        if path.name != "terminal.py"
    }
    assert {name: count for name, count in writing.items() if count} == {}


@given(st.text())
def test_what_is_printable(text: str) -> None:
    """Escaped text is printable, can be encoded and stays as it is when it is escaped again."""
    shown = printable(text)
    assert shown.isprintable()
    assert bool(shown.encode()) == bool(text)
    assert printable(shown) == shown
    assert Line(text, (text, "bold")).plain == (shown + shown).rstrip()


@NAMES
def test_json_of_odd_names(name: str) -> None:
    """JSON is ASCII that every stream takes and that means the name as it is."""
    iface = IfaceInfo(name, 5, None, [], [], name)
    joined = JoinedGroup(ip_address("239.1.2.3"), name, 5, 3, 1)
    arrival = Arrival(Datagram(b"\x7f", (name, 4000), None, 5, name), 5000, 0, None, b"\x7f")
    for value in (interface_object(iface, []), group_object(joined), datagram_object(arrival, "noon")):
        with written() as (output, _):
            terminal.write_json(value)
        text = output.getvalue().removesuffix("\n")
        assert (text.isascii(), text.isprintable()) == (True, True)
        assert json.loads(text) == value


# On hosts of their own


@pytest.fixture(scope="module")
def odd(lab: Lab) -> Host:
    """A host with an interface for each odd name that `ip` can be told of."""
    made = lab.host("odd")
    for number, name in enumerate(NAMED):
        made.add_interface(name, ipv4=f"10.9.{number}.1/24", ipv6=f"fd09:{number}::1/64")
    made.ip(f"route add default via 10.9.0.254 dev {NAMED[0]}")
    return made


NAMED = ["e\x1b[31m", "\u202eabc", "[red]x", "\udcff\udcfe"]


@pytest.mark.parametrize("name", NAMED, ids=ascii)
def test_every_command(odd: Host, mcast: Run, listening: Program, name: str) -> None:
    """Each command names the interface, and does so escaped; JSON has its very name."""
    endpoint = f"239.1.2.3:5000%{name}"
    receiver = listening(endpoint, "-c", "1", "-W", "20", on=odd)
    done = {
        "send": mcast("send", endpoint, on=odd),
        "groups": mcast("groups", on=odd),
        "interfaces": mcast("interfaces", on=odd),
        "plan": mcast("plan", endpoint, on=odd),
        "demo": mcast("demo", "-i", name, on=odd),
        "nothing": mcast("recv", endpoint, "-W", "0", on=odd),
        "error": mcast("send", f"[ff15::1]:5000%{name}", "x" * 65_000, on=odd),
        "refusal": mcast("send", endpoint, "-i", f"{name}9", on=odd),
        "absent": mcast("send", f"239.1.2.3:5000%{name}9", on=odd),
    }
    received, _ = receiver.communicate(timeout=30)
    for command, (_, output, messages) in done.items():
        assert all(line.isprintable() for line in (output + messages).split("\n")), command
        assert printable(name) in output + messages or repr(name)[1:-1] in output + messages, command
    assert f"239.1.2.3:5000%{printable(name)} from" in received
    assert name in {each["name"] for each in json.loads(mcast("interfaces", "--json", on=odd).stdout)}
    assert name in {each["interface"] for each in json.loads(mcast("groups", "--json", on=odd).stdout)["groups"]}


def test_on_a_colour_terminal(odd: Host) -> None:
    """Styles are all that a terminal is told: without them every line is printable."""
    shown = on_terminal(odd, "interfaces")
    assert "\x1b[1m" in shown
    plain = shown.replace("\x1b[1m", "").replace("\x1b[32m", "").replace("\x1b[31m", "").replace("\x1b[0m", "")
    assert all(line.isprintable() for line in plain.splitlines())
    assert {printable(name) for name in NAMED} <= set(plain.split())
