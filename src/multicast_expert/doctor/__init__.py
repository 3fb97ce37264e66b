"""Find out why multicast does not arrive: `diagnose` does all of it, `collect` its first half, `judge` its second.

Each name loads its module on first use, so that judging saved facts needs no sockets.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from multicast_expert.doctor.collector import collect
    from multicast_expert.doctor.diagnosis import diagnose
    from multicast_expert.doctor.facts import Facts, Unread
    from multicast_expert.doctor.judgement import judge
    from multicast_expert.doctor.report import Finding, Report
    from multicast_expert.doctor.saved import facts_from_text, facts_to_text

__all__ = [
    "Facts",
    "Finding",
    "Report",
    "Unread",
    "collect",
    "diagnose",
    "facts_from_text",
    "facts_to_text",
    "judge",
]

_HOMES = {
    "Facts": "facts",
    "Finding": "report",
    "Report": "report",
    "Unread": "facts",
    "collect": "collector",
    "diagnose": "diagnosis",
    "facts_from_text": "saved",
    "facts_to_text": "saved",
    "judge": "judgement",
}


def __getattr__(name: str) -> Any:
    home = _HOMES.get(name)
    if home is None:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{home}"), name)
