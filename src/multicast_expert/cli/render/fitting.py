"""Fits the columns of a table into the width of a terminal, and shortens what is too long for its column. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

from multicast_expert.cli.render.text import columns

_GAP = 2
"""Blanks between two columns, where there is room; else one."""


class Room(NamedTuple):
    """How wide a column may be."""

    least: int
    """With less, its cells would say nothing."""
    usual: int
    """With so much, nearly all cells are whole."""
    most: int = 0
    """With so much, all cells are whole."""


class Fitted(NamedTuple):
    """The columns that fit, and how wide they are."""

    sizes: Mapping[str, int]
    gap: int


def fit(needed: Mapping[str, Room], further: Mapping[str, Room], width: int) -> Fitted:
    """Return the columns that fit into `width`; each mapping names the most important one first.

    As many of the needed ones as fit with their least get that, then in turn what they usually take. If all have that,
    further ones follow; what is left over completes the longest cells. The first column is always there.
    """
    sizes: dict[str, int] = {}
    for name, room in needed.items():
        least = room.least if sizes else min(room.least, width)
        if sum(sizes.values()) + len(sizes) + least > width:
            break
        sizes[name] = least
    gap = _GAP if sum(each.usual + _GAP for each in needed.values()) <= width + _GAP else 1
    left = width + gap - sum(size + gap for size in sizes.values())
    left -= _grow(sizes, {name: room.usual for name, room in needed.items()}, left)
    for name, room in further.items() if gap == _GAP else ():
        if room.usual + gap > left:
            break
        sizes[name] = room.usual
        left -= room.usual + gap
    _grow(sizes, {name: room.most for name, room in (*needed.items(), *further.items())}, left)
    return Fitted(sizes, gap)


def _grow(sizes: dict[str, int], wanted: Mapping[str, int], left: int) -> int:
    """Widen the columns, the first one first, to what they want as far as there is room; return what it took."""
    taken = 0
    for name, size in sizes.items():
        more = max(0, min(left - taken, wanted[name] - size))
        sizes[name] = size + more
        taken += more
    return taken


def padded(text: str, size: int, *, to_the_right: bool = False) -> str:
    """Return the text with the blanks that make it `size` columns wide."""
    blanks = " " * (size - columns(text))
    return blanks + text if to_the_right else text + blanks


def shortened(text: str, size: int) -> str:
    """Return the text in at most `size` columns; an ellipsis stands for the end of a longer one."""
    if columns(text) <= size:
        return text
    text = text[: max(0, size - 1)]
    while columns(text) > size - 1 and text:
        text = text[:-1]
    return text + "…"


def shortened_address(text: str, size: int) -> str:
    """Return the address in at most `size` columns without some of its middle: hosts differ at the end."""
    if len(text) <= size or size < 4:
        return shortened(text, size)
    head = (size - 1) // 3
    return f"{text[:head]}…{text[-(size - 1 - head) :]}"


def fitting_items(items: Mapping[str, int], width: int, gap: str = "  ") -> str:
    """Return the items that fit on one line, whole and in their order; those of the highest rank are left out first."""
    kept = {text: rank for text, rank in items.items() if text}
    while len(kept) > 1 and columns(gap.join(kept)) > width:
        del kept[max(kept, key=lambda text: kept[text])]
    return gap.join(kept)
