"""Fake Windows, macOS and FreeBSD kernels: strict about bytes and options, in memory only.

They are written from the systems' own headers and documents and import nothing of the library, so that an error in its
tables cannot hide here as well.
"""

from .freebsd import FakeFreeBSD
from .kernel import FakeKernel
from .macos import FakeMacOS
from .network import FakeHost, FakeInterface, FakeNetwork, Packet, Sent
from .record import Call
from .sockets import FakeSocket
from .windows import FakeWindows

__all__ = [
    "Call",
    "FakeFreeBSD",
    "FakeHost",
    "FakeInterface",
    "FakeKernel",
    "FakeMacOS",
    "FakeNetwork",
    "FakeSocket",
    "FakeWindows",
    "Packet",
    "Sent",
]
