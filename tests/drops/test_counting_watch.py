"""What watches of programs have in common: they open as a whole or leave nothing open."""

import errno
from collections.abc import Callable
from contextlib import closing
from ipaddress import ip_address
from pathlib import Path
from typing import Any

import pytest

from doctor.stage import GROUP, Stage
from drops.kernels import refuse
from multicast_expert.core.addresses import IPAddress
from multicast_expert.core.errors import MulticastExpertError
from multicast_expert.doctor.facts import Target, Unread
from multicast_expert.doctor.host.linux import LinuxHost
from multicast_expert.system.drops import counting_watch
from multicast_expert.system.drops.bpf import Bpf
from multicast_expert.system.drops.counting_watch import CountingWatch
from multicast_expert.system.drops.lookups import LookupWatch
from multicast_expert.system.drops.program import Layout
from multicast_expert.system.drops.sends import SendWatch

Kind = Callable[[IPAddress], CountingWatch[Any]]
KINDS = pytest.mark.parametrize("kind", [LookupWatch, SendWatch])


@KINDS
def test_a_kernel_without_the_members_is_named_and_nothing_stays_open(
    cabled: Stage, monkeypatch: pytest.MonkeyPatch, kind: Kind
) -> None:
    """The map that was open already is closed."""
    monkeypatch.setattr(counting_watch, "read_kernel_layout", lambda: Layout({}, False, {}))
    with cabled.listener.entered():
        before = len([*Path("/proc/self/fd").iterdir()])
        with pytest.raises(MulticastExpertError, match=r"^This kernel does not report the (lookups|results) of \w+\.$"):
            kind(ip_address(GROUP))
        assert len([*Path("/proc/self/fd").iterdir()]) == before


@KINDS
def test_the_doctor_says_what_it_could_not_read(cabled: Stage, monkeypatch: pytest.MonkeyPatch, kind: Kind) -> None:
    """A count that the kernel refuses while the watch is open becomes an unread fact, and so does a refused watch."""
    with cabled.listener.entered():
        host = LinuxHost(Target(GROUP, 4, None, None, None))
        watch = host.open_counting_watch(kind)
        assert not isinstance(watch, Unread)
        read = host.lookups if kind is LookupWatch else host.failed_sends
        with closing(watch):
            assert read(watch) == ()
            monkeypatch.setattr(Bpf, "counts", refuse(errno.EIO))
            unread = read(watch)
        assert isinstance(unread, Unread)
        assert unread.reason.endswith(": Input/output error.")
        monkeypatch.setattr(Bpf, "open_counts", refuse(errno.ENOSYS))
        refused = host.open_counting_watch(kind)
        assert isinstance(refused, Unread)
        assert read(refused) is refused
