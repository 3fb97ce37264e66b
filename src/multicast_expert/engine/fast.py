"""Which form of the fast paths runs: the extension where it was built, else the same in Python. Touches no OS.

The environment variable MULTICAST_EXPERT_PURE, not empty, chooses Python.
"""

from __future__ import annotations

import os
from types import ModuleType

from multicast_expert.datagram import Datagram
from multicast_expert.engine import mmsg
from multicast_expert.engine.intake import Expecting, Intake, Learn, PythonIntake
from multicast_expert.kernel import Kernel, SystemKernel

native: ModuleType | None = None
"""The extension; None where it was not built or is not wanted."""
if not os.environ.get("MULTICAST_EXPERT_PURE"):
    try:
        from multicast_expert import _fast

        native = _fast
    except ImportError:
        pass


def intake(kernel: Kernel, coalesced: bool, learn: Learn) -> Intake | Expecting:
    """Return the fastest Intake that there is for the kernel; `coalesced`: datagrams may come in runs."""
    platform = kernel.platform
    fields = platform.ancillary.fields
    if not coalesced:
        fields = {kind: field for kind, field in fields.items() if field != "segment_size"}
    # Both of the fast ones call the system that runs the program, by descriptors.
    here = platform.segments and isinstance(kernel, SystemKernel)
    if here and native is not None:
        extension: Expecting = native.Intake(Datagram, fields, platform.msg_trunc, learn)
        return extension
    kind = mmsg.BatchIntake if here and mmsg.available() else PythonIntake
    return kind(fields, platform.msg_trunc, learn)
