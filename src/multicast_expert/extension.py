"""The optional extension in C, loaded in this one place. Touches no OS.

If the environment variable MULTICAST_EXPERT_PURE is set and not empty, the forms in Python run instead.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from types import ModuleType
from typing import Any

FREE_THREADED: bool = not getattr(sys, "_is_gil_enabled", lambda: True)()
"""Whether threads run at the same time; then there is no extension, and neighbouring bytecodes are not one step."""
Datagram: type | None = None
"""The class in C; None without the extension."""
arrived: Callable[..., Any] | None = None
"""Returns a Datagram of its parts, the quickest way."""
Handout: Callable[..., Any] | None = None
"""Returns the async iterator in C over a backlog."""
Rows: Callable[..., Any] | None = None
"""Returns the rows in C of a DatagramBuffer."""
lay_datagrams: Callable[..., Any] | None = None
"""Lays datagrams out as the packets of a file."""
native: ModuleType | None = None
"""The module with the system calls; None without the extension, and on Windows, where it has none."""
if not os.environ.get("MULTICAST_EXPERT_PURE"):
    try:
        from multicast_expert import _fast

        Datagram = _fast.Datagram
        arrived = _fast.arrived
        Handout = _fast.Handout
        Rows = _fast.Rows
        lay_datagrams = _fast.lay_datagrams
        native = _fast if hasattr(_fast, "Intake") else None
    except ImportError:
        pass
    except AttributeError as _error:
        raise ImportError(f"The C extension is of another version ({_error}): install the package again.") from _error
