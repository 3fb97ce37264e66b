"""The live table of `mcast top` on a terminal, by Textual, which shows lines and hands over keys."""

from __future__ import annotations

import asyncio
import signal
from contextlib import suppress
from typing import ClassVar, Protocol

from textual import events
from textual.app import App, ComposeResult
from textual.binding import Binding, BindingType
from textual.content import Content
from textual.widget import Widget

from multicast_expert.cli.interruption import SIGNALS
from multicast_expert.cli.render.text import Line
from multicast_expert.cli.render.top import Snapshot, View


class Feed(Protocol):
    """Where the streams come from."""

    def filenos(self) -> tuple[int, ...]:
        """Return the descriptors that are readable while something waits."""

    def take(self) -> bool:
        """Take in what waits, for some milliseconds; return whether there may be more."""

    def snapshot(self) -> Snapshot:
        """Return how everything is now."""


class _Lines(Widget):
    """The whole screen, drawn from the view."""

    can_focus = False

    def __init__(self, view: View) -> None:
        super().__init__()
        self._view = view

    def render(self) -> Content:
        lines = self._view.lines(self.size.width, self.size.height)
        return Content("\n").join([_content(line) for line in lines])


def _content(line: Line) -> Content:
    return Content.assemble(*((text, _STYLES.get(style, style)) for text, style in line.pieces))


# Words that Textual spells in another way.
_STYLES = {"bold red": "bold $text-error", "red": "$text-error", "bold yellow": "bold $text-warning"}


class TopScreen(App[None]):
    """Shows the streams of a feed until `q` is pressed, or for so many seconds."""

    TITLE: str | None = "mcast top"
    CSS: ClassVar[str] = "Screen { layout: vertical; } _Lines { width: 1fr; height: 1fr; text-wrap: nowrap; }"
    ENABLE_COMMAND_PALETTE: ClassVar[bool] = False
    # By itself, Textual takes Ctrl-C for the wish to copy.
    BINDINGS: ClassVar[list[BindingType]] = [Binding("ctrl+c", "interrupt", "Quit", show=False, priority=True)]
    INTERVAL = 1.0
    """Seconds between two looks at all rows."""

    def __init__(self, feed: Feed, seconds: float | None = None) -> None:
        super().__init__()
        self._feed, self._seconds = feed, seconds
        self.view: View = View(feed.snapshot())
        # Kept, as a look for it fails at the end: the clock may go on when the screen has none of its parts any more.
        self._lines = _Lines(self.view)
        self.is_interrupted: bool = False
        """Whether Ctrl-C or a signal ended it."""

    def on_load(self) -> None:
        """Have signals give the terminal back from now on, before it is taken."""
        loop = asyncio.get_running_loop()
        with suppress(RuntimeError, ValueError):  # only the main thread has signals
            for each in SIGNALS:
                if signal.getsignal(each) is not signal.SIG_IGN:
                    loop.add_signal_handler(each, self.action_interrupt)

    def action_interrupt(self) -> None:
        """End it."""
        self.is_interrupted = True
        self.exit()

    def compose(self) -> ComposeResult:
        """Fill the screen."""
        yield self._lines

    def on_mount(self) -> None:
        """Begin to take in frames whenever some wait."""
        loop = asyncio.get_running_loop()
        for descriptor in self._feed.filenos():
            loop.add_reader(descriptor, self._feed.take)
        self.set_interval(self.INTERVAL, self._show)
        if self._seconds is not None:
            self.set_timer(self._seconds, self.exit)

    def on_unmount(self) -> None:
        """Take in nothing any more."""
        for descriptor in self._feed.filenos():
            asyncio.get_running_loop().remove_reader(descriptor)

    def _show(self) -> None:
        self._feed.take()
        self.view.show(self._feed.snapshot())
        self._lines.refresh()

    def on_key(self, event: events.Key) -> None:
        """Hand a key to the view."""
        if self.view.press(event.key, event.character, self.size.height):
            self._lines.refresh()
        else:
            self.exit()

    def on_mouse_scroll_down(self) -> None:
        """Go down with the wheel."""
        self._scroll(1)

    def on_mouse_scroll_up(self) -> None:
        """Go up with the wheel."""
        self._scroll(-1)

    def _scroll(self, by: int) -> None:
        self.view.move(by)
        self._lines.refresh()
