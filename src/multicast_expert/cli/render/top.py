"""The screen of `mcast top` as lines, and what its keys change. Pure: touches no OS."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from multicast_expert.cli.render.fitting import Fitted, Room, fit, fitting_items, padded
from multicast_expert.cli.render.stream_detail import detail_lines
from multicast_expert.cli.render.streams import COLUMNS, SPARK, Surroundings
from multicast_expert.cli.render.text import Line, columns, counted, printable, scaled
from multicast_expert.observe.streams import Stream

_WIDEST = 30
"""Columns in which nearly all addresses are whole."""
_GAP = 2
# Columns, the most important one first: how wide at least and usually, or as wide as their texts. All that fit are
# shown; the needed ones rather narrow than not at all.
NEEDED = {
    "group": (14, 0), "bit/s": (6, 6), "drops": (6, 6), "joined by": (6, 9), "last": (7, 7), "loss": (7, 7),
    "source": (9, 0), "interface": (5, 0), "protocol": (8, 20),
}  # fmt: skip
FURTHER = {"dgram/s": 8, "last minute": SPARK, "jitter": 8, "hops": 5, "dscp": 5}
_SORTS = [name for name in COLUMNS if name in NEEDED or name in FURTHER]
# What the keys do, and in which order they give way where not all fit on a line.
KEYS = {
    "↑↓ move": 2, "Enter open": 1, "s S sort": 3, "r reverse": 6, "/ filter": 4, "m mark": 7, "p pause": 5, "q quit": 0,
}  # fmt: skip
DETAIL_KEYS = {"Esc back": 0, "↑↓ other stream": 2, "p pause": 3, "q quit": 1}
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
        paused = "PAUSED" if self.is_paused else ""
        rates = {f"{scaled(datagrams).strip()} datagrams/s": 3, f"{scaled(bits)}bit/s": 1, f"on {where}": 2}
        taken = len(shown) + (len(paused) + _GAP if paused else 0)
        text = fitting_items(rates, width - taken - _GAP)
        yield Line((shown, "bold"), f"{' ' * _GAP}{text}", (f"  {paused}" if paused else "", "bold yellow")).cut(width)
        stalled = sum(each.is_stalled for each in found.streams)
        dropped = sum(bool(found.around.dropped(each)) for each in found.streams)
        troubles = [f"{counted(stalled, 'stream')} stalled"] * bool(stalled)
        troubles += [f"{counted(dropped, 'stream')} with drops on this host"] * bool(dropped)
        troubles += found.troubles()
        if troubles:
            yield from Line("; ".join(troubles), style="bold red").rows(width)

    def _foot(self, width: int) -> str:
        if self.is_typing or (self.filter and not self.is_open):
            text = printable(f"filter: {self.filter}") + ("▏" if self.is_typing else "")
            text = fitting_items({text: 0, "Enter keep" if self.is_typing else "": 2, "Esc clear": 1}, width)
        else:
            text = fitting_items(DETAIL_KEYS if self.is_open else KEYS, width)
        return text[:width].ljust(width)

    def _table(self, width: int, height: int) -> Iterator[Line]:
        table = self._columns(width)
        arrow = "▴" if self.reverse else "▾"
        titles = [
            padded(COLUMNS[name].title(size, arrow * (name == self.sort)), size, to_the_right=COLUMNS[name].is_number)
            for name, size in table.sizes.items()
        ]
        gap = " " * table.gap
        yield Line(gap.join(titles), style="bold")
        if not self.rows:
            yield Line("")
            hint = "Nothing matches the filter." if self.filter else "No datagram to any group was heard yet."
            yield Line(hint, style="dim")
            return
        room, place = max(1, height - 1), self.place
        self._top = max(0, min(self._top, place, len(self.rows) - room), place - room + 1)
        now, around = self.snapshot.now, self.snapshot.around
        for turn, each in enumerate(self.rows[self._top : self._top + room], self._top):
            cells = [COLUMNS[name].fitted(_cell(name, each, now, around), size) for name, size in table.sizes.items()]
            style = "red" if each.is_stalled or around.dropped(each) else ""
            style += " bold" if key_of(each) in self.marked else ""
            # Red on the bar of the selected row could not be read.
            style = style.replace("red", "") + " reverse" if turn == place else style
            yield Line(padded(gap.join(cells), width), style=style.strip())

    def _columns(self, width: int) -> Fitted:
        """Return the columns that find room, in the order of the table, and their widths."""
        # One interface is named in the first line; of several it matters on which one a stream was seen.
        several = len({each.interface for each in self.rows}) > 1
        needed = {name: self._room(name, *sizes) for name, sizes in NEEDED.items() if several or name != "interface"}
        further = {name: Room(size, size) for name, size in FURTHER.items()}
        found = fit(needed, further, width)
        return Fitted({name: found.sizes[name] for name in COLUMNS if name in found.sizes}, found.gap)

    def _room(self, name: str, least: int, usual: int) -> Room:
        if least == usual:
            return Room(least, usual)
        around = self.snapshot.around
        longest = max(map(columns, {_cell(name, each, 0.0, around) for each in self.rows}), default=0)
        return Room(least, usual or max(len(name) + 1, min(longest, _WIDEST)), longest)

    def _detail(self, width: int) -> Iterator[Line]:
        return detail_lines(self.rows[self.place], self.snapshot.now, self.snapshot.around, width)


def _cell(name: str, stream: Stream, now: float, around: Surroundings) -> str:
    return COLUMNS[name].cell(stream, now, around)


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
