"""Results as SVG plots. The only file that needs matplotlib."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import matplotlib as mpl
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, MaxNLocator

from benchmarks.cases import CASES
from benchmarks.results import Result

OURS, OTHERS = "#0b6e99", "#b0b7bd"
LINES = ("#0b6e99", "#d1495b", "#66a182", "#8d6a9f", "#edae49")
STYLE: Any = {
    "svg.fonttype": "none",
    "svg.hashsalt": "benchmarks",  # the same numbers give the same file
    "font.family": "sans-serif",
    "font.size": 10,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.axisbelow": True,
    "grid.color": "#e3e6e8",
}
_LIBRARY = ("receive", "iteration", "async ", "pure", "send_many", "sendto", "recvfrom", "await", "sender")
"""How the labels of what this library does begin."""


_NUMBER = FuncFormatter(lambda value, _: f"{value:,.10g}")


def _unit(case: str) -> tuple[float, str]:
    found = next(each for each in CASES if each.name == case)
    return found.scale, found.unit


def _bars(figure: Figure, results: Sequence[Result]) -> None:
    """One bar for each subject, the shortest on top."""
    scale, unit = _unit(results[0].case)
    once = {result.subject: result for result in results}.values()
    ordered = sorted(once, key=lambda result: result.median, reverse=scale > 1)
    axes = figure.subplots()
    bars = axes.barh(
        [result.subject for result in ordered],
        [result.median * scale for result in ordered],
        color=[OURS if result.subject.startswith(_LIBRARY) else OTHERS for result in ordered],
        height=0.72,
    )
    axes.bar_label(bars, fmt="{:,.2f}" if scale > 1 else "{:,.0f}", padding=4)
    axes.margins(x=0.12)
    axes.xaxis.set_major_locator(MaxNLocator(5))
    axes.xaxis.set_major_formatter(_NUMBER)
    axes.set_xlabel(unit)
    axes.xaxis.grid(True)
    axes.tick_params(left=False)


def _curves(figure: Figure, results: Sequence[Result]) -> None:
    """One line for each subject, over what is varied."""
    scale, unit = _unit(results[0].case)
    axes = figure.subplots()
    for number, subject in enumerate(dict.fromkeys(result.subject for result in results)):
        own = [result for result in results if result.subject == subject]
        points = [result.point or 0 for result in own]
        axes.plot(
            points,
            [result.median * scale for result in own],
            "o-",
            color=LINES[number % len(LINES)],
            label=subject,
            markersize=5,
        )
    points = sorted({result.point or 0 for result in results})
    if points[0] == 0:
        axes.set_xscale("symlog", linthresh=64, linscale=0.5)
    else:
        axes.set_xscale("log")
    axes.set_xticks(points, [f"{point:,}" for point in points])
    axes.set_xticks([], minor=True)
    values = [result.median for result in results]
    if max(values) > 10 * min(values):
        axes.set_yscale("log")
        unit += ", logarithmic"
    else:
        axes.set_ylim(bottom=0)
    axes.yaxis.set_major_formatter(_NUMBER)
    axes.set_ylabel(unit)
    axes.grid(True, which="both")
    axes.legend(frameon=False)


def _tails(figure: Figure, results: Sequence[Result]) -> None:
    """Median, p99 and p99.9 of each subject on a line."""
    scale, unit = _unit(results[0].case)
    axes = figure.subplots()
    ordered = sorted(results, key=lambda result: result.median, reverse=True)
    names = [result.subject for result in ordered]
    for name, marker, color in (("median", "o", OURS), ("p99", "s", "#edae49"), ("p99.9", "D", "#d1495b")):
        values = [(result.tail or {})[name] * scale for result in ordered]
        axes.plot(values, names, marker, color=color, label=name)
    axes.set_xscale("log")
    axes.xaxis.set_major_formatter(_NUMBER)
    axes.set_xlabel(f"{unit}, logarithmic")
    axes.grid(True, which="both")
    axes.legend(frameon=False, loc="lower center", ncols=3, bbox_to_anchor=(0.5, 1.0))


class Plot(NamedTuple):
    """A picture: the cases it shows, and how."""

    name: str
    title: str
    cases: tuple[str, ...]
    draw: Callable[[Figure, Sequence[Result]], None]
    height: float = 3.6
    axis: str | None = None
    """What the x axis of a curve is."""


PLOTS = (
    Plot(
        "receive", "Receiving 200 bytes: processor time", ("receive-many", "receive", "recvfrom", "async"), _bars, 5.6
    ),
    Plot("send", "Sending 200 bytes to a plain receiver: processor time", ("send-plain",), _bars, 2.8),
    Plot("send-gro", "Sending 200 bytes to a receiver with GRO: processor time", ("send-gro",), _bars, 2.8),
    Plot("rate", "Highest rate without loss, one core each", ("rate",), _bars, 2.8),
    Plot("groups", "Receiving from many groups", ("groups",), _curves, axis="groups joined, traffic on all of them"),
    Plot("sizes", "Receiving payloads of different size", ("sizes",), _curves, axis="bytes of payload"),
    Plot("opening", "Opening and closing once", ("opening",), _curves, axis="interfaces of the machine"),
    Plot("latency", "Round trip, blocking", ("latency",), _tails, 2.8),
    Plot("latency-async", "Round trip, event loops", ("latency-async",), _tails, 3.4),
)


def draw(results: Sequence[Result], directory: Path, suffix: str = "svg") -> None:
    """Draw what was measured into the directory."""
    directory.mkdir(parents=True, exist_ok=True)
    metadata: dict[str, Any] = {"Date": None} if suffix == "svg" else {}
    for plot in PLOTS:
        own = [result for result in results if result.case in plot.cases]
        if not own:
            continue
        with mpl.rc_context(STYLE):
            figure = Figure(figsize=(7.6, plot.height), layout="constrained")
            plot.draw(figure, own)
            axes = figure.axes[0]
            figure.suptitle(plot.title, x=0.01, ha="left", fontweight="bold")
            if plot.axis is not None:
                axes.set_xlabel(plot.axis)
            figure.savefig(directory / f"{plot.name}.{suffix}", metadata=metadata, dpi=100)
