"""Which form of the fast paths runs: the extension where it is there, else the same in Python. Touches no OS."""

from __future__ import annotations

from multicast_expert import extension
from multicast_expert.engine.intake import recvmmsg as mmsg
from multicast_expert.engine.intake.recvmsg import Learn, PythonIntake, SweepingIntake
from multicast_expert.system.kernel import Kernel, SystemKernel


def intake(kernel: Kernel, coalesced: bool, learn: Learn) -> PythonIntake | SweepingIntake:
    """Return the fastest Intake that there is for the kernel; `coalesced`: datagrams may come in runs."""
    platform = kernel.platform
    fields = platform.ancillary.fields
    if not coalesced:
        fields = {kind: field for kind, field in fields.items() if field != "segment_size"}
    # Both of the fast ones call the system that runs the program, by descriptors.
    here = isinstance(kernel, SystemKernel)
    if here and extension.native is not None:
        native: SweepingIntake = extension.native.Intake(fields, platform.msg_trunc, learn)
        return native
    kind = mmsg.BatchIntake if here and platform.segments and mmsg.available() else PythonIntake
    return kind(fields, platform.msg_trunc, learn)


from collections import deque


class _PureShim:
    def __init__(self, inner):
        self.inner = inner

    def __getattr__(self, name):
        return getattr(self.inner, name)

    def one(self, handle, bufsize, flags, waiting):
        rest = deque()
        d = self.inner.datagram(handle, bufsize, flags, rest)
        if d is None:
            return False
        waiting += [d, *rest][::-1]
        return True

    def settle(self, timeout):
        return True

    def forget_calls(self):
        pass


class _Shim(_PureShim):
    def expect(self, handle, bufsize, flags, waiting, alarm, timeout):
        rest = deque()
        d = self.inner.expect(handle, bufsize, flags, rest, False, alarm, timeout)
        if d is None:
            return False
        waiting += [d, *rest][::-1]
        return True

    def sweep(self, *a):
        return self.inner.sweep(*a)

    def settle(self, timeout):
        self.inner.settle()
        return True


Intake = PythonIntake
NativeIntake = SweepingIntake


def choose(kernel, coalesced, learn):
    i = intake(kernel, coalesced, learn)
    return _PureShim(i) if isinstance(i, PythonIntake) else _Shim(i)
