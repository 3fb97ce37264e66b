"""The moving pictures: a terminal is recorded, and its screens become a picture with an animation in CSS."""

import fcntl
import os
import pty
import select
import struct
import subprocess
import termios
import time
from collections.abc import Iterator, Sequence
from html import escape
from itertools import groupby
from pathlib import Path
from typing import NamedTuple

import pyte

from documents import screens
from documents.screens import MCAST, Network, network

FOLDER = Path(__file__).parent.parent / "docs" / "pictures"
COLUMN, ROW, PADDING = 8.4, 17, 12
"""Of a character, in the units of the picture, and the room around the screen."""
INTERVAL = 0.25
"""Seconds between two looks at the screen."""
THINKING = 0.6
"""Seconds between the end of the line and the first output."""
PATIENCE = 60.0
"""Seconds to wait for that output: loading takes long on a busy machine."""
PAUSE = 4.0
"""Seconds that the last screen stays."""
COLOURS = {
    "default": "#d8dee9", "black": "#2b303b", "red": "#f07178", "green": "#9ece6a", "brown": "#e0af68",
    "blue": "#7aa2f7", "magenta": "#bb9af7", "cyan": "#7dcfff", "white": "#eceff4",
}  # fmt: skip
GROUND = "#1e2129"

Row = tuple[tuple[str, str, str, bool], ...]
"""Runs of characters that look alike: text, colour, ground, bold."""


class Frame(NamedTuple):
    """One screen, and since when it is there, in seconds."""

    since: float
    rows: tuple[Row, ...]


class Movie(NamedTuple):
    """A command on a terminal: its words, the size, what happens meanwhile, keys by seconds, and how long."""

    words: tuple[str, ...]
    columns: int
    lines: int
    keys: tuple[tuple[float, bytes], ...] = ()
    seconds: float = 15.0


MOVIES = {
    "demo": Movie(("demo",), 74, 22),
    "top": Movie(("top",), 110, 16, ((4.0, b"\x1b[B"), (5.0, b"\r"), (8.5, b"\x1b"), (10.0, b"q")), 11.0),
}


def record(movie: Movie, places: Network) -> list[Frame]:
    """Run the command on the desk, and return the screens that differ."""
    screen = pyte.Screen(movie.columns, movie.lines)
    stream = pyte.ByteStream(screen)
    frames = list(_typing(f"mcast {' '.join(movie.words)}", screen, stream))
    typed = len(frames)
    ours, theirs = pty.openpty()
    fcntl.ioctl(ours, termios.TIOCSWINSZ, struct.pack("4H", movie.lines, movie.columns, 0, 0))
    environment = {name: value for name, value in os.environ.items() if name != "NO_COLOR"}
    size = {"COLUMNS": str(movie.columns), "LINES": str(movie.lines), "TERM": "xterm-256color"}
    program = places.desk.popen(
        [*MCAST, *movie.words], stdin=theirs, stdout=theirs, stderr=theirs, env=environment | size
    )
    os.close(theirs)
    select.select([ours], [], [], PATIENCE)  # the clock starts with its first output
    start, keys = time.monotonic(), list(movie.keys)
    while (now := time.monotonic() - start) < movie.seconds:
        if keys and now > keys[0][0]:
            os.write(ours, keys.pop(0)[1])
        try:
            if select.select([ours], [], [], INTERVAL)[0]:
                time.sleep(0.05)  # the rest of a screen
                stream.feed(os.read(ours, 1 << 20))
        except OSError:  # the other end is closed
            break
        if (rows := _rows(screen)) != frames[-1].rows:
            frames.append(Frame(round(frames[typed - 1].since + THINKING + now, 2), rows))
    os.close(ours)
    places.desk.end_process(program)
    return frames


def _typing(line: str, screen: pyte.Screen, stream: pyte.ByteStream) -> Iterator[Frame]:
    """Yield the screens on which somebody types a line behind a prompt."""
    stream.feed(b"$ ")
    yield Frame(0.0, _rows(screen))
    for number, character in enumerate(line):
        stream.feed(character.encode())
        yield Frame(round(0.8 + number * 0.09, 2), _rows(screen))
    stream.feed(b"\r\n")


def _rows(screen: pyte.Screen) -> tuple[Row, ...]:
    return tuple(
        tuple(
            ("".join(cell.data for cell in run), *look)
            for look, run in groupby((screen.buffer[y][x] for x in range(screen.columns)), _look)
        )
        for y in range(screen.lines)
    )


def _look(cell: pyte.screens.Char) -> tuple[str, str, bool]:
    colour, ground = _colour(cell.fg), _colour(cell.bg) if cell.bg != "default" else GROUND
    return (ground, colour, cell.bold) if cell.reverse else (colour, ground, cell.bold)


def _colour(name: str) -> str:
    return COLOURS.get(name.removeprefix("bright"), name if name in COLOURS else f"#{name}")


def svg(frames: Sequence[Frame], columns: int, lines: int, title: str) -> str:
    """Return the picture: every row that occurs is drawn once, and each screen shows it for its time."""
    end = frames[-1].since + PAUSE
    width, height = columns * COLUMN + 2 * PADDING, lines * ROW + 2 * PADDING
    names: dict[Row, int] = {}
    shown = list[str]()
    for number, frame in enumerate(frames):
        rows = [(line, names.setdefault(row, len(names))) for line, row in enumerate(frame.rows) if _is_drawn(row)]
        uses = "".join(f'<use href="#r{name}" y="{line * ROW}"/>' for line, name in rows)
        shown.append(f'<g class="f" id="f{number}">{uses}</g>')
    definitions = "".join(f'<g id="r{name}">{"".join(_row(row))}</g>' for row, name in names.items())
    times = [*(frame.since for frame in frames), end]
    steps = "".join(_step(number, times[number] / end, times[number + 1] / end) for number in range(len(frames)))
    last = len(frames) - 1
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width:.0f} {height}" role="img"'
        f' aria-label="{escape(title)}"><title>{escape(title)}</title><style>'
        "text{font:14px ui-monospace,DejaVu Sans Mono,Menlo,Consolas,monospace;white-space:pre}.f{visibility:hidden}"
        f".f{{animation:{end:.1f}s step-end infinite}}{steps}"
        f"@media (prefers-reduced-motion:reduce){{.f{{animation:none}}#f{last}{{visibility:visible}}}}</style>"
        f'<rect width="100%" height="100%" rx="8" fill="{GROUND}"/><defs>{definitions}</defs>'
        f'<g transform="translate({PADDING} {PADDING})">{"".join(shown)}</g></svg>\n'
    )


def _step(number: int, begin: float, end: float) -> str:
    frames = f"0%{{visibility:{'visible' if begin == 0 else 'hidden'}}}"
    if begin:
        frames += f"{begin:.2%}{{visibility:visible}}"
    if end < 1:
        frames += f"{end:.2%}{{visibility:hidden}}"
    return f"#f{number}{{animation-name:k{number}}}@keyframes k{number}{{{frames}}}"


def _is_drawn(row: Row) -> bool:
    return any(text.strip() or ground != GROUND for text, _, ground, _ in row)


def _row(row: Row) -> Iterator[str]:
    x = 0.0
    for text, colour, ground, bold in row:
        width = len(text) * COLUMN
        if ground != GROUND:
            yield f'<rect x="{x:.1f}" width="{width:.1f}" height="{ROW}" fill="{ground}"/>'
        if text.strip():
            weight = ' font-weight="bold"' if bold else ""
            yield (
                f'<text x="{x:.1f}" y="13" textLength="{len(text.rstrip()) * COLUMN:.1f}" fill="{colour}"{weight}>'
                f"{escape(text.rstrip())}</text>"
            )
        x += width


def busy(places: Network) -> None:
    """The camera sends streams of several kinds."""
    screens.stream(places)
    screens.start(
        places.camera, "send", "239.1.2.9:5600%eth0", "--stamp", "-s", "200", "--rate", "90pps", "-c", "0", "x"
    )
    places.camera.popen(
        ["iperf", "-u", "-c", "239.1.0.5", "-b", "2M", "-t", "30", "-p", "5001"],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    notice = "NOTIFY * HTTP/1.1\r\nHOST: 239.255.255.250:1900\r\nNT: upnp:rootdevice\r\nNTS: ssdp:alive\r\n\r\n"
    screens.start(places.camera, "send", "239.255.255.250:1900%eth0", "--interval", "1", "-c", "0", notice)


def write(names: Sequence[str]) -> None:
    """Write the moving pictures of these names."""
    for name in names:
        movie = MOVIES[name]
        with network() as places:
            if name == "top":
                busy(places)
            frames = record(movie, places)
        text = svg(frames, movie.columns, movie.lines, f"mcast {name} in a terminal")
        (FOLDER / f"{name}.svg").write_text(text, encoding="utf-8")
