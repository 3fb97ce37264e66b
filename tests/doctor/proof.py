"""The document about what the doctor names: its table is read, compared, and rewritten on demand.

`MCAST_WRITE_PROOF=1 python -m pytest -n auto tests/doctor/test_faults.py` writes what the doctor says now.
"""

import fcntl
import os
from pathlib import Path
from typing import NamedTuple

from doctor.faults import FAULTS, Fault

PATH = Path(__file__).parent.parent.parent / "docs" / "doctor-proof.md"
NOTHING = "*unknown*"
WRITES = bool(os.environ.get("MCAST_WRITE_PROOF"))

HEAD = "| What is wrong | Named by root | Named without privileges | Cured by the printed commands |"
DOCUMENT = """\
# What the doctor names

[The doctor](doctor.md) says why no multicast arrives. This page shows how often it is right. Each fault in the table
was built in a [network of namespaces](how-to/testing.md) on Linux, and the doctor was run in it, once by root and once
without any privilege. For the last column the test ran the commands that the doctor had printed, and the datagrams
arrived.

{summary}

{head}
|---|---|---|---|
{table}

*unknown*: it named no cause, and said what it could not look at and what to run instead. Without privileges that is the
honest answer wherever only raw frames or the rules of the firewall tell one cause from another. What is told at times
only is *unknown* here too.

Where nothing of the group reaches the host, as behind a switch that drops it or when the sender's TTL is too small,
`no-traffic` is all that the host can know; so it counts as right there. What no namespace can show is not in the table:
radio, containers, macOS, Windows.

The tests in `tests/doctor/` build these faults and compare the answers with this page; `MCAST_WRITE_PROOF=1` makes them
write it. They also build healthy networks, with noise and without, in which the doctor has to be content.
"""


class Row(NamedTuple):
    """What the document says about a fault: the causes that were named, and whether the remedy cured it."""

    story: str
    root: str = ""
    unprivileged: str = ""
    cured: str = ""

    @property
    def line(self) -> str:
        """As in the document."""
        return f"| {' | '.join(self)} |"


def named(cause: str | None) -> str:
    """A cause as the document writes it."""
    return NOTHING if cause is None else f"`{cause}`"


def right(fault: Fault) -> set[str]:
    """What the document may say where the doctor was right."""
    return {named(cause) for cause in fault.causes}


def stories() -> dict[str, str]:
    """The story of each fault by its name; "The same …" is told in full."""
    told: dict[str, str] = {}
    before = ""
    for fault in FAULTS:
        story = fault.story
        if story.startswith("The same"):
            story = before + story.removeprefix("The same").replace(" with IPv6", "; IPv6", 1)
        else:
            before = story
        told[fault.name] = story
    return told


def rows() -> dict[str, Row]:
    """The rows of the document by the names of their faults."""
    lines = [line for line in PATH.read_text(encoding="utf-8").splitlines() if line.startswith("| ")]
    told = {row.story: row for row in (Row(*line[2:-2].split(" | ")) for line in lines)}
    return {name: told[story] for name, story in stories().items() if story in told}


def row_of(fault: Fault) -> Row:
    """The row of this fault; an empty one if the document has none."""
    return rows().get(fault.name, Row(stories()[fault.name]))


def document(told: dict[str, Row]) -> str:
    """The whole document with these rows."""
    faults = [fault for fault in FAULTS if fault.name in told]
    by_root = sum(told[fault.name].root in right(fault) for fault in faults)
    without = sum(told[fault.name].unprivileged in right(fault) for fault in faults)
    cured = sum(row.cured == "yes" for row in told.values())
    summary = (
        f"Of {len(faults)} faults, {by_root} were named to root and {without} without privileges. "
        f"None of the rest was named wrongly. {cured} were cured by what was printed."
    )
    return DOCUMENT.format(summary=summary, head=HEAD, table="\n".join(told[fault.name].line for fault in faults))


def write(fault: Fault, **cells: str) -> None:
    """Put something into the row of this fault."""
    with PATH.open() as locked:
        fcntl.flock(locked, fcntl.LOCK_EX)  # other workers write other rows
        told = rows() | {fault.name: row_of(fault)._replace(**cells)}
        PATH.write_text(document(told), encoding="utf-8")
