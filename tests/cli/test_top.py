"""The live table: its lines as golden text, its keys, and the real screen of Textual."""

import json
import os
import re
from contextlib import suppress
from dataclasses import replace
from html import unescape
from itertools import pairwise
from math import sin
from pathlib import Path

import pytest

from multicast_expert.cli.live import pause_after
from multicast_expert.cli.render.fitting import Room, fit, padded, shortened, shortened_address
from multicast_expert.cli.render.streams import Place, Surroundings, ago, sparkline, stream_object, table_lines
from multicast_expert.cli.render.top import Snapshot, View
from multicast_expert.cli.top_screen import TopScreen
from multicast_expert.observe.sequence import Numbers
from multicast_expert.observe.streams import Stream
from multicast_expert.wire.recognise.table import Protocol

NOW = 1_700_000_000.0
GOLDEN = Path(__file__).with_name("top")
PICTURES = Path(__file__).parents[2] / "docs" / "pictures"
"""Those of the documents show the same screens."""
SIZES = [(40, 24), (80, 24), (160, 50)]


def stream(number: int, group: str, port: int, protocol: Protocol | None = None, **changes: object) -> Stream:
    """A stream whose rates follow from its number."""
    datagrams, bits = 100.0 * number, 1.3e6 * number
    history = tuple((datagrams, bits * (1 + 0.5 * sin(each / 5 + number))) for each in range(60))
    fields = {
        "interface": "eth0", "group": group, "port": port, "source": f"10.0.0.{number}", "outgoing": False,
        "datagrams": 6000 * number, "payload_bytes": 9_750_000 * number, "datagrams_per_second": datagrams,
        "bits_per_second": bits, "history": history, "first": NOW - 60, "last": NOW - 0.01, "longest_gap": 0.025,
        "hop_limit": 16, "dscp": 34, "senders": 1, "is_stalled": False, "protocol": protocol, "numbers": None,
        "head": b"G\x40\x11\x10" + bytes(range(60)),
    }  # fmt: skip
    return Stream(**{**fields, **changes})


STREAMS = [
    stream(7, "239.1.0.1", 1234, Protocol("MPEG-TS", "Test One (MPEG-2 video, MPEG audio)")),
    stream(
        6, "239.1.0.2", 5004, Protocol("RTP", "MPEG-TS: Service01 (H.264, AAC)"),
        numbers=Numbers(36000, 18, 0, 2, 0.00042),
    ),
    stream(5, "239.69.1.1", 5004, Protocol("RTP", "L24/48000/2"), numbers=Numbers(30000, 0, 0, 0, 1.3e-5)),
    stream(4, "239.255.0.7", 5568, Protocol("sACN", "universe 7, desk one"), source="192.168.178.104"),
    stream(3, "239.1.0.5", 5001, Protocol("iperf", "version 2"), is_stalled=True, last=NOW - 12, bits_per_second=0.0),
    stream(2, "ff15::db8:1", 5000, Protocol("mcast stamp", "stream 90b12bd6822a263b"), source="fd00::1"),
    stream(1, "239.255.255.250", 1900, Protocol("SSDP", "alive upnp:rootdevice"), last=NOW - 40, outgoing=True),
    stream(8, "224.0.0.251", 5353, Protocol("mDNS", "question \x1b[31m_http._tcp.local PTR"), bits_per_second=900.0),
    stream(9, "239.7.7.7", 7777, None, bits_per_second=55.0, dscp=0),
]  # fmt: skip
AROUND = Surroundings(
    {
        Place("239.1.0.2", "eth0"): {"ffmpeg"},
        Place("224.0.0.251", "eth0"): {"avahi-daemon"},
        Place("239.69.1.1", "eth0"): (),
    },
    {(Place("239.1.0.2", "eth0"), 5004): 1234},
)  # fmt: skip
SNAPSHOT = Snapshot(NOW, ("eth0",), STREAMS, AROUND)


class Fixed:
    """A feed that does not change."""

    def __init__(self, snapshot: Snapshot = SNAPSHOT) -> None:
        self.fixed = snapshot
        self.reading, self.writing = os.pipe()
        os.set_blocking(self.reading, False)
        self.taken = 0

    def filenos(self) -> tuple[int, ...]:
        """A pipe that holds what was not taken."""
        return (self.reading,)

    def take(self) -> bool:
        """Take what the pipe holds."""
        with suppress(BlockingIOError):
            self.taken += len(os.read(self.reading, 10))
        return False

    def snapshot(self) -> Snapshot:
        """Always the same."""
        return self.fixed


@pytest.fixture
def anyio_backend() -> str:
    """Textual runs on asyncio."""
    return "asyncio"


def view_of(snapshot: Snapshot = SNAPSHOT) -> View:
    """A view as it begins."""
    return View(snapshot)


def pressed(view: View, *keys: str) -> View:
    """The same view after these keys."""
    for key in keys:
        assert view.press(key, key if len(key) == 1 else None, 24)
    return view


def plain(view: View, width: int = 80, height: int = 24) -> str:
    """The screen as text."""
    return "".join(line.plain + "\n" for line in view.lines(width, height))


def picture_text(svg: str) -> str:
    """The text of a screenshot, a line for each line of the screen."""
    rows: dict[float, dict[float, str]] = {}
    for x, y, text in re.findall(r'<text(?![^>]*title)[^>]*? x="([\d.]+)" y="([\d.]+)"[^>]*>([^<]*)</text>', svg):
        rows.setdefault(float(y), {})[float(x)] = unescape(text).replace("\xa0", " ")
    lines = []
    for _, pieces in sorted(rows.items()):
        line = ""
        for x, text in sorted(pieces.items()):
            line = line.ljust(round(x / 12.2)) + text
        lines.append(line.rstrip())
    return "\n".join(lines) + "\n"


def without_fonts(svg: str) -> str:
    """The picture with the fonts of the machine that shows it, instead of some from elsewhere."""
    return re.sub(r"@font-face {.*?}\s*", "", svg, flags=re.DOTALL).replace("Fira Code, monospace", "monospace")


def check(name: str, text: str) -> None:
    """Compare with the golden file."""
    path = GOLDEN / name
    if os.environ.get("MCAST_WRITE_GOLDEN"):
        path.write_text(text, encoding="utf-8")
    assert text == path.read_text(encoding="utf-8")


@pytest.mark.parametrize(("width", "height"), SIZES)
@pytest.mark.parametrize("keys", [(), ("enter",)], ids=["table", "detail"])
@pytest.mark.anyio
async def test_the_screen_of_textual(width: int, height: int, keys: tuple[str, ...]) -> None:
    """A real screen of each size shows the golden text, and exactly what the lines say."""
    app = TopScreen(Fixed())
    async with app.run_test(size=(width, height)) as pilot:
        await pilot.press("down", *keys)
        await pilot.pause(1.2)
        picture = app.export_screenshot()
        lines = plain(app.view, width, height)
    text = picture_text(picture)
    blank = re.sub(r"\n+", "\n", re.sub(r"[^\S\n]+", " ", text))
    assert blank == re.sub(r"\n+", "\n", re.sub(r"[^\S\n]+", " ", lines))
    name = f"{'detail' if keys else 'table'}-{width}x{height}"
    check(f"{name}.txt", lines)
    if os.environ.get("MCAST_WRITE_GOLDEN"):
        (PICTURES / f"top-{name}.svg").write_text(without_fonts(picture), encoding="utf-8")
    assert picture_text((PICTURES / f"top-{name}.svg").read_text(encoding="utf-8")) == text


@pytest.mark.anyio
async def test_the_screen_is_drawn_anew_when_its_size_changes() -> None:
    """After a change of size there are as many columns as find room."""
    app = TopScreen(Fixed())
    async with app.run_test(size=(80, 24)) as pilot:
        await pilot.pause(1.2)
        assert "JITTER" not in picture_text(app.export_screenshot())
        await pilot.resize_terminal(160, 50)
        await pilot.pause()
        assert "JITTER" in picture_text(app.export_screenshot())


def test_questions_that_take_long_come_less_often() -> None:
    """But never so seldom that what is shown is old."""
    assert [pause_after(spent) for spent in (0.0, 0.05, 9.0)] == [2.0, 5.0, 10.0]


@pytest.mark.anyio
async def test_frames_are_taken_while_the_screen_waits() -> None:
    """What becomes readable is taken at once, by turns with the keys; q and the end of the time end it."""
    feed = Fixed()
    app = TopScreen(feed)
    async with app.run_test() as pilot:
        os.write(feed.writing, b"abc")
        await pilot.pause(0.3)
        assert feed.taken == 3
        await pilot.press("q")
        await pilot.pause()
        assert not app.is_running
    app = TopScreen(Fixed(), seconds=0.2)
    async with app.run_test() as pilot:
        await pilot.pause(1)
        assert not app.is_running


@pytest.mark.parametrize("width", [10, 20, 40, 79, 80, 120, 300])
@pytest.mark.parametrize("height", [1, 2, 3, 10, 60])
def test_every_size_is_filled(width: int, height: int) -> None:
    """The lines are as many as the screen has, and none is longer, in the table and in the detail."""
    for keys in ((), ("enter",), ("slash", "x")):
        lines = pressed(view_of(), *keys).lines(width, height)
        assert len(lines) == height
        assert max(len(line.plain) for line in lines) <= width


def columns_at(width: int, snapshot: Snapshot = SNAPSHOT) -> list[str]:
    """The titles of the table."""
    title = next(line for line in plain(view_of(snapshot), width).splitlines() if line.startswith("GROUP"))
    return title.replace("JOINED BY", "JOINED").split()


def test_drops_and_joins_are_seen_at_every_width() -> None:
    """The stream that drops and the program that joined stand in the table, with every column that has room."""
    for width in (40, 60, 80, 100, 160):
        (row,) = (line for line in plain(view_of(), width).splitlines() if line.startswith("239.1.0.2:5004"))
        assert {"1234", "ffmpeg"} <= {*row.split()}
        assert {"DROPS", "JOINED"} <= {*columns_at(width)}
    assert columns_at(80) == ["GROUP", "SOURCE", "BIT/S▾", "LOSS", "DROPS", "LAST", "JOINED", "PROTOCOL"]
    for narrow, wide in pairwise(range(20, 200)):
        assert {*columns_at(narrow)} <= {*columns_at(wide)}, wide
    assert "STALLED" in plain(view_of(), 60)


def test_the_interface_is_a_column_where_there_are_several() -> None:
    """It tells streams of the same group apart; a single one stands in the first line."""
    assert "INTERFACE" not in columns_at(160)
    both = [*STREAMS, replace(STREAMS[0], interface="enp0s31f6")]
    found = SNAPSHOT._replace(streams=both, interfaces=("eth0", "enp0s31f6"))
    assert "INTERFACE" in columns_at(160, found)
    assert "IFACE" in columns_at(80, found)
    assert "e…1f6" in plain(view_of(found), 80)


def test_unknown_is_not_none() -> None:
    """Where the OS does not report drops and joins, a question mark says so."""
    text = plain(view_of(SNAPSHOT._replace(around=Surroundings())))
    assert re.search(r"239\.1\.0\.1:1234 .* \?     now \?", text)
    opened = plain(pressed(view_of(SNAPSHOT._replace(around=Surroundings())), "enter"))
    assert "which programs here have joined it is not known" in opened
    assert "how many of it the kernel of this host dropped is not known" in opened


def test_the_keys_that_fit_are_whole() -> None:
    """The last line holds whole items, the ones that matter longest, and the way out always."""
    everything = "↑↓ move  Enter open  s S sort  r reverse  / filter  m mark  p pause  q quit"
    for width in range(20, 100):
        (keys,) = view_of().lines(width, 24)[-1:]
        items = keys.plain.split("  ")
        assert "q quit" in items
        assert {*items} <= {*everything.split("  ")}
    assert pressed(view_of(), "slash", "r").lines(40, 24)[-1].plain == "filter: r▏  Enter keep  Esc clear"


def test_what_is_too_long_is_shortened() -> None:
    """Addresses keep both of their ends, other texts their beginning, also where letters are two columns wide."""
    assert shortened_address("192.168.178.104", 10) == "192…78.104"
    assert shortened_address("10.0.0.1", 10) == "10.0.0.1"
    assert shortened("Nachrichten", 6) == "Nachr…"
    assert shortened("総合テレビ", 6) == "総合…"
    assert padded("総合", 6) == "総合  "


@pytest.mark.parametrize(
    ("width", "sizes", "gap"),
    [
        (5, {"a": 5}, 1),
        (14, {"a": 14}, 1),
        (18, {"a": 13, "b": 4}, 1),
        (30, {"a": 20, "b": 8}, 2),
        (35, {"a": 20, "b": 8, "c": 3}, 2),
        (50, {"a": 20, "b": 20, "c": 3}, 2),
    ],
)
def test_columns_find_room(width: int, sizes: dict[str, int], gap: int) -> None:
    """First the least of what is needed, then what is usual, then further columns, then the longest cells."""
    needed = {"a": Room(10, 20, 20), "b": Room(4, 8, 20)}
    assert fit(needed, {"c": Room(3, 3)}, width) == (sizes, gap)


def test_no_control_character_of_a_payload_reaches_the_terminal() -> None:
    """A name in a payload that would steer a terminal is escaped in table and detail."""
    view = pressed(view_of(), "slash", *"mdns", "enter")
    assert "\x1b" not in plain(view)
    assert r"\x1b[31m_http" in plain(view, 200)
    assert "\x1b" not in plain(pressed(view, "enter"))


def test_keys_sort_and_reverse() -> None:
    """s goes through the columns, S back, r turns the order."""
    view = view_of()
    assert [row.group for row in view.rows][:2] == ["239.1.0.1", "239.1.0.2"]
    pressed(view, "s")
    assert view.sort == "loss"
    assert view.rows[0].group == "239.1.0.2"
    pressed(view, "s")
    assert (view.sort, view.rows[0].group) == ("drops", "239.1.0.2")
    pressed(view, "s")
    assert (view.sort, view.rows[0].group) == ("last", "239.1.0.5")
    pressed(view, "S", "S", "S", "r")
    assert (view.sort, view.rows[-1].group) == ("bit/s", "239.1.0.1")
    assert "BIT/S▴" in plain(view)


def test_the_filter_is_typed() -> None:
    """Letters narrow the rows while they are typed; Enter keeps them, Esc clears them; q is a letter then."""
    view = pressed(view_of(), "slash", *"rtp", "q", "backspace")
    assert {row.group for row in view.rows} == {"239.1.0.2", "239.69.1.1"}
    assert "filter: rtp▏" in plain(view)
    pressed(view, "enter")
    assert "2 streams of 9" in plain(view)
    pressed(view, "escape")
    assert len(view.rows) == 9
    assert pressed(view, "slash", *"none of these").rows == []
    assert "Nothing matches" in plain(view)
    assert not view_of().press("q", "q", 24)


def test_a_pause_keeps_the_moment() -> None:
    """While paused nothing changes; afterwards the newest moment shows."""
    view = pressed(view_of(), "p")
    view.show(SNAPSHOT._replace(streams=STREAMS[:2]))
    assert (len(view.rows), "PAUSED" in plain(view)) == (9, True)
    pressed(view, "p")
    view.show(SNAPSHOT._replace(streams=STREAMS[:2]))
    assert len(view.rows) == 2


def test_marked_rows_come_first_and_selection_stays_with_its_stream() -> None:
    """A mark moves a row to the top; the selection follows its stream through every order."""
    view = view_of()
    last = view.rows[-1]
    pressed(view, "end", "m")
    assert (view.rows[0], view.place) == (last, 0)
    pressed(view, "m")
    assert (view.rows[-1], view.place) == (last, len(STREAMS) - 1)
    view.show(SNAPSHOT._replace(streams=STREAMS[:3]))
    assert view.place == 0


def test_a_table_longer_than_the_screen_scrolls() -> None:
    """The selected row is always to be seen."""
    many = [stream(1, f"239.2.{each // 250}.{each % 250}", 5000) for each in range(1000)]
    view = view_of(SNAPSHOT._replace(streams=many))
    for keys in (["end"], ["pageup"] * 3, ["down"] * 5, ["home"], ["pagedown"] * 70):
        pressed(view, *keys)
        assert view.rows[view.place].group in plain(view)


def test_troubles_are_said() -> None:
    """Frames that were lost here, and streams beyond the limit, stand in the second line."""
    text = plain(view_of(SNAPSHOT._replace(lost=1234, unfollowed=5)), 160)
    assert (
        "1 stream stalled; 1 stream with drops on this host; "
        "1,234 frames lost here: they came faster than they were read; 5 datagrams of further streams not followed\n"
    ) in text


def test_cells() -> None:
    """Times, sparklines and objects of JSON say what they are to say."""
    assert [ago(each) for each in (0, 12.4, 180, 7200)] == ["now", "12 s", "3 min", "2 h"]
    assert sparkline([0, 1, 8, 4], 60) == " " * 57 + "▂█▅"
    assert sparkline([1, 1, 1, 1, 4, 4, 4, 4], 15) == " " * 13 + "▃█"
    assert sparkline([7] * 100, 10) == "█" * 10
    assert sparkline([], 15) == " " * 15
    one = stream_object(STREAMS[1], NOW, AROUND)
    assert json.loads(json.dumps(one)) == one
    assert (one["lost"], one["jitter"], one["kernel_drops"], one["programs"]) == (18, 0.00042, 1234, ["ffmpeg"])
    unknown = stream_object(STREAMS[8], NOW, Surroundings())
    assert (unknown["joined"], unknown["kernel_drops"], unknown["protocol"]) == (None, None, None)


def test_the_plain_table() -> None:
    """Columns without anything in them are left out."""
    names = ("group", "loss", "bit/s", "joined by", "last")
    lines = [line.plain for line in table_lines(STREAMS[7:], NOW, AROUND, 160, names)]
    assert lines == [
        "GROUP             BIT/S  JOINED BY     LAST",
        "224.0.0.251:5353    900  avahi-daemon   now",
        "239.7.7.7:7777       55                 now",
    ]


def test_a_plain_table_fits_80_columns() -> None:
    """Addresses and numbers stay whole, a protocol is wrapped, and fewer rates are shown."""
    lines = [line.plain for line in table_lines(STREAMS[1:4], NOW, AROUND, 80)]
    assert lines == [
        "GROUP            SOURCE          IFACE BIT/S   LOSS LAST PROTOCOL",
        "239.1.0.2:5004   10.0.0.6        eth0  7.8 M 0.05 %  now RTP MPEG-TS: Service01",
        "                                                         (H.264, AAC)",
        "239.69.1.1:5004  10.0.0.5        eth0  6.5 M    0 %  now RTP L24/48000/2",
        "239.255.0.7:5568 192.168.178.104 eth0  5.2 M         now sACN universe 7, desk",
        "                                                         one",
    ]
    assert max(map(len, lines)) <= 80


def test_a_narrow_table_names_its_columns() -> None:
    """Where the table is too wide, each stream is a sentence with the names of the columns."""
    names = ("group", "loss", "bit/s", "joined by", "last")
    lines = [line.plain for line in table_lines(STREAMS[7:], NOW, AROUND, 30, names)]
    assert lines == [
        "224.0.0.251:5353 bit/s 900, joined by avahi-daemon, last now",
        "239.7.7.7:7777 bit/s 55, last now",
    ]


@pytest.mark.anyio
async def test_the_clock_may_go_on_at_the_end() -> None:
    """A look at the rows that comes when the screen has been emptied is no error."""
    app = TopScreen(Fixed())
    async with app.run_test(size=(80, 24)) as pilot:
        await app.screen.remove_children()
        app._show()
        await pilot.pause()
    app._show()
