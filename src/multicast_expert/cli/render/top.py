"""The screen of `mcast top` as lines, and what its keys change. Pure: touches no OS."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from multicast_expert.cli.render.streams import COLUMNS, SPARK, Surroundings, detail_lines
from multicast_expert.cli.render.text import Line, counted, printable, scaled
from multicast_expert.observe.streams import Stream

# Columns in the order in which they find room, and how wide they are; 0: as wide as their texts.
ROOM = {
    "group": 0, "bit/s": 7, "protocol": 14, "last": 7, "source": 0, "loss": 6, "dgram/s": 7, "interface": 0,
    "last minute": SPARK, "drops": 6, "joined by": 12, "jitter": 8, "hops": 4, "dscp": 4,
}  # fmt: skip
_WIDEST = 30
_GAP, _WIDE = 2, 120
_SORTS = [name for name in COLUMNS if name in ROOM]
KEYS = "↑↓ move  Enter open  s S sort  r reverse  / filter  m mark  p pause  q quit"
DETAIL_KEYS = "Esc back  ↑↓ other stream  p pause  q quit"
_AROUND = 8
"""Lines that a page key keeps."""


class Snapshot(NamedTuple):
    """Everything at one moment."""

    now: float
    interfaces: tuple[str, ...]
    streams: Sequence[Stream]
    around: Surroundings
    lost: int = 0
    """Frames that came faster than they were read."""
    unfollowed: int = 0
    """Datagrams of streams beyond the limit."""
    forgotten: int = 0
    """Silent streams that gave their room to others."""

    def troubles(self) -> list[str]:
        """Return in words what is not in the streams although it was on the wire."""
        told = {
            f"{self.lost:,} frames lost here: they came faster than they were read": self.lost,
            f"{self.unfollowed:,} datagrams of further streams not followed": self.unfollowed,
            f"{counted(self.forgotten, 'silent stream')} forgotten for want of room": self.forgotten,
        }
        return [text for text, count in told.items() if count]


Key = tuple[str, str, int, str, bool]


def key_of(stream: Stream) -> Key:
    """Return what tells a stream from others."""
    return stream.interface, stream.group, stream.port, stream.source, stream.outgoing


@dataclass(slots=True)
class View:
    """What the user has chosen to see, and the rows that follow from it."""

    snapshot: Snapshot
    sort: str = "bit/s"
    reverse: bool = False
    filter: str = ""
    is_typing: bool = False
    """Whether keys go into the filter."""
    is_paused: bool = False
    is_open: bool = False
    """Whether one stream is shown instead of the table."""
    marked: set[Key] = field(default_factory=set)
    rows: list[Stream] = field(default_factory=list)
    selected: Key | None = None
    _top: int = 0

    def __post_init__(self) -> None:
        self.arrange()

    def show(self, snapshot: Snapshot) -> None:
        """Show another moment, unless paused."""
        if not self.is_paused:
            self.snapshot = snapshot
            self.arrange()

    def arrange(self) -> None:
        """Filter and sort the rows: marked ones first."""
        now, around, order = self.snapshot.now, self.snapshot.around, COLUMNS[self.sort].order
        rows = [each for each in self.snapshot.streams if self._fits(each)]
        rows.sort(key=lambda each: (each.group, each.port, each.source, each.interface))
        rows.sort(key=lambda each: order(each, now, around), reverse=self.reverse)
        rows.sort(key=lambda each: key_of(each) not in self.marked)
        self.rows = rows

    def _fits(self, stream: Stream) -> bool:
        if not self.filter:
            return True
        names = ("group", "source", "interface", "protocol", "last", "joined by")
        cells = (COLUMNS[name].cell(stream, self.snapshot.now, self.snapshot.around) for name in names)
        return self.filter.casefold() in " ".join(cells).casefold()

    @property
    def place(self) -> int:
        """The row that is selected; the first one if that one has gone."""
        return next((turn for turn, each in enumerate(self.rows) if key_of(each) == self.selected), 0)

    def move(self, by: int) -> None:
        """Select another row."""
        if self.rows:
            place = max(0, min(len(self.rows) - 1, self.place + by))
            self.selected = key_of(self.rows[place])

    def press(self, key: str, character: str | None, height: int) -> bool:
        """Do what a key means; return False if it ends the program."""
        if self.is_typing:
            self._type(key, character)
            return True
        if key == "q":
            return False
        action = _ACTIONS.get(key)
        if action is not None:
            action(self, max(1, height - _AROUND))
        return True

    def _type(self, key: str, character: str | None) -> None:
        if key == "escape":
            self.filter = ""
        if key in ("enter", "escape"):
            self.is_typing = False
        elif key == "backspace":
            self.filter = self.filter[:-1]
        elif character is not None and character.isprintable():
            self.filter += character
        self.arrange()

    def _sort_by(self, step: int) -> None:
        self.sort = _SORTS[(_SORTS.index(self.sort) + step) % len(_SORTS)]
        self.reverse = False
        self.arrange()

    def _turn(self) -> None:
        self.reverse = not self.reverse
        self.arrange()

    def _mark(self) -> None:
        if self.rows:
            self.marked ^= {key_of(self.rows[self.place])}
            self.arrange()

    def _open(self) -> None:
        if self.rows:
            self.selected = key_of(self.rows[self.place])
            self.is_open = True

    def _close(self) -> None:
        if self.is_open:
            self.is_open = False
        elif self.filter:
            self.filter = ""
            self.arrange()

    def lines(self, width: int, height: int) -> list[Line]:
        """Return the screen, exactly `height` lines of at most `width` columns."""
        head = list(self._head(width))
        body_height = max(0, height - len(head) - 1)
        body = list(self._detail(width) if self.is_open and self.rows else self._table(width, body_height))
        lines = [*head, *body[:body_height]]
        lines += [Line("")] * (height - 1 - len(lines))
        return [*lines[: height - 1], Line(self._foot(width), style="reverse")]

    def _head(self, width: int) -> Iterator[Line]:
        found = self.snapshot
        datagrams = sum(each.datagrams_per_second for each in found.streams)
        bits = sum(each.bits_per_second for each in found.streams)
        shown = counted(len(self.rows), "stream")
        shown += f" of {len(found.streams):,}" if len(self.rows) < len(found.streams) else ""
        where = ", ".join(found.interfaces[:4]) + (" …" if len(found.interfaces) > 4 else "")
        rates = f"{scaled(datagrams).strip()} datagrams/s  {scaled(bits)}bit/s"
        paused = [("  PAUSED", "bold yellow")] if self.is_paused else []
        yield _cut(Line((f"{shown}  ", "bold"), f"{rates}  on {where}", *paused), width)
        stalled = sum(each.is_stalled for each in found.streams)
        troubles = [f"{counted(stalled, 'stream')} stalled"] * bool(stalled) + found.troubles()
        if troubles:
            yield _cut(Line("; ".join(troubles), style="bold red"), width)

    def _foot(self, width: int) -> str:
        if self.is_typing or (self.filter and not self.is_open):
            text = f"filter: {self.filter}" + ("▏  Enter keep  Esc clear" if self.is_typing else "  Esc clear")
        else:
            text = DETAIL_KEYS if self.is_open else KEYS
        return printable(text)[:width].ljust(width)

    def _table(self, width: int, height: int) -> Iterator[Line]:
        names = self._columns(width)
        titles = [name.upper() + ("▴" if self.reverse else "▾") * (name == self.sort) for name in names]
        yield Line(_row(titles, names), style="bold")
        if not self.rows:
            yield Line("")
            hint = "Nothing matches the filter." if self.filter else "No datagram to any group was heard yet."
            yield Line(hint, style="dim")
            return
        room, place = max(1, height - 1), self.place
        self._top = max(0, min(self._top, place, len(self.rows) - room), place - room + 1)
        now, around = self.snapshot.now, self.snapshot.around
        for turn, each in enumerate(self.rows[self._top : self._top + room], self._top):
            cells = [COLUMNS[name].cell(each, now, around) for name in names]
            style = "red" if each.is_stalled or around.dropped(each) else ""
            style += " bold" if key_of(each) in self.marked else ""
            # Red on the bar of the selected row could not be read.
            style = style.replace("red", "") + " reverse" if turn == place else style
            yield Line(_row(cells, names).ljust(width), style=style.strip())

    def _columns(self, width: int) -> dict[str, int]:
        """Return the columns that find room, in the order of the table, and their widths."""
        chosen: dict[str, int] = {}
        left = width + _GAP
        for name, least in ROOM.items():
            cell = COLUMNS[name].cell
            texts = (cell(each, 0.0, self.snapshot.around) for each in self.rows) if not least else ()
            if name == "protocol" and width >= _WIDE:
                least += 9  # noqa: PLW2901 - details are worth more there than further columns
            size = least or max(len(name) + 1, *(min(len(text), _WIDEST) for text in texts), 0)
            if size + _GAP <= left:
                chosen[name] = size
                left -= size + _GAP
        if "protocol" in chosen:
            chosen["protocol"] += left
        return {name: chosen[name] for name in COLUMNS if name in chosen}

    def _detail(self, width: int) -> Iterator[Line]:
        stream = self.rows[self.place]
        for line in detail_lines(stream, self.snapshot.now, self.snapshot.around, width):
            yield _cut(line, width)


def _row(cells: Sequence[str], columns: dict[str, int]) -> str:
    return (" " * _GAP).join(
        _fitted(cell, size).rjust(size) if COLUMNS[name].is_number else _fitted(cell, size).ljust(size)
        for cell, (name, size) in zip(cells, columns.items(), strict=True)
    )


def _fitted(text: str, size: int) -> str:
    return text if len(text) <= size else text[: size - 1] + "…"


def _cut(line: Line, width: int) -> Line:
    pieces, left = [], width
    for text, style in line.pieces:
        pieces.append((text[:left], style))
        left -= len(text[:left])
    return Line(*pieces)


_ACTIONS: dict[str, Callable[[View, int], None]] = {
    "up": lambda view, _: view.move(-1),
    "down": lambda view, _: view.move(1),
    "k": lambda view, _: view.move(-1),
    "j": lambda view, _: view.move(1),
    "pageup": lambda view, page: view.move(-page),
    "pagedown": lambda view, page: view.move(page),
    "home": lambda view, _: view.move(-len(view.rows)),
    "end": lambda view, _: view.move(len(view.rows)),
    "s": lambda view, _: view._sort_by(1),
    "S": lambda view, _: view._sort_by(-1),
    "r": lambda view, _: view._turn(),
    "slash": lambda view, _: setattr(view, "is_typing", not view.is_open),
    "m": lambda view, _: view._mark(),
    "p": lambda view, _: setattr(view, "is_paused", not view.is_paused),
    "space": lambda view, _: setattr(view, "is_paused", not view.is_paused),
    "enter": lambda view, _: view._open(),
    "escape": lambda view, _: view._close(),
    "backspace": lambda view, _: view._close(),
}
