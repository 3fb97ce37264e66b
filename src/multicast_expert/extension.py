"""Extension: the optional one in C, where it was built and is wanted. Touches no OS.

The environment variable MULTICAST_EXPERT_PURE, not empty, chooses Python.
"""

from __future__ import annotations

import os
from types import ModuleType

Record: type | None = None
"""What a Datagram is in memory; None without the extension."""
native: ModuleType | None = None
"""The rest of it: system calls. None without the extension, and on Windows, where it has none."""
if not os.environ.get("MULTICAST_EXPERT_PURE"):
    try:
        from multicast_expert import _fast

        Record = _fast.Record
        native = _fast if hasattr(_fast, "Intake") else None
    except ImportError:
        pass
