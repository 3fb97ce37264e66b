"""Extension: the optional one in C, where it was built and is wanted. Touches no OS.

The environment variable MULTICAST_EXPERT_PURE, not empty, chooses Python.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from types import ModuleType
from typing import Any

Datagram: type | None = None
"""The class, as it makes it; None without the extension."""
arrived: Callable[..., Any] | None = None
"""Makes a Datagram of its parts, the quickest way."""
native: ModuleType | None = None
"""The rest of it: system calls. None without the extension, and on Windows, where it has none."""
if not os.environ.get("MULTICAST_EXPERT_PURE"):
    try:
        from multicast_expert import _fast

        Datagram = _fast.Datagram
        arrived = _fast.arrived
        native = _fast if hasattr(_fast, "Intake") else None
    except ImportError:
        pass
