"""What the commands with `--wait` wait for."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from multicast_expert.cli import terminal
from multicast_expert.core.errors import UnknownInterfaceError
from multicast_expert.system.interfaces import find_interfaces


def missing_interfaces(ifaces: Iterable[str]) -> list[str]:
    """Return those that are not there."""
    return [name for name in ifaces if not _is_there(name)]


def tell_wait(missing: Sequence[str]) -> None:
    """Write what is waited for, each once; nothing if all is there."""
    if missing:
        terminal.tell(f"waiting for {', '.join(dict.fromkeys(missing))}")


def _is_there(name: str) -> bool:
    try:
        return bool(find_interfaces([name]))
    except UnknownInterfaceError:
        return False
