"""A failed open leaves no socket behind and says which step, on which group and interface, why, and what to do."""

from collections import Counter
from struct import pack
from typing import Any

import pytest

from engines.systems import GROUP, OTHER, PORT, System, heard
from fakes import FakeMacOS
from multicast_expert import IfaceInfo, McastRxSocket, McastTxSocket, MulticastOSError, MulticastWarning
from multicast_expert.platforms import MACOS
from multicast_expert.sockets import receiver as reception


def modern_join(system: System, version: int) -> dict[str, int]:
    """Return what narrows a failure down to MCAST_JOIN_GROUP, or to the classic call where that is all there is."""
    legacy = system.name == "windows-legacy"
    name = ("IP_ADD_MEMBERSHIP" if version == 4 else "IPV6_JOIN_GROUP") if legacy else "MCAST_JOIN_GROUP"
    return {"level": 0 if version == 4 else 41, "number": system.platform.options[name][1]}


class TestFailedOpen:
    """Whichever call fails."""

    @pytest.mark.parametrize("error", ["EINVAL", "EADDRNOTAVAIL", "EACCES"])
    def test_a_join_that_is_refused(self, system: System, version: int, error: str) -> None:
        """The last of four joins: all sockets are closed, and the text tells everything."""
        number = system.number(error)
        system.kernel.fail("setsockopt", number, **modern_join(system, version), nth=4)
        with pytest.raises(MulticastOSError) as caught:
            system.receiver([GROUP[version], OTHER[version]], "eth0 eth1").open()
        assert system.kernel.open_sockets() == []
        assert caught.value.errno == system.errno(number)
        assert caught.value.step == "join"
        text = str(caught.value)
        assert f"Cannot join {OTHER[version]} on eth1: " in text
        assert f"({error} {number})" in text
        if error != "EACCES" or system.is_windows:
            assert caught.value.reason
            assert caught.value.remedy

    def test_any_call_that_is_refused(self, system: System, version: int) -> None:
        """Each call of an open in turn: either the socket can do without it, or nothing stays open."""
        groups = [GROUP[version], OTHER[version]]
        system.receiver(groups, "eth0 eth1").open().close()
        made = [
            call.call for call in system.kernel.calls if call.call in ("socket", "setsockopt", "ioctl_bytes", "bind")
        ]
        turns: Counter[str] = Counter()
        raised = 0
        for call in made:
            turns[call] += 1
            system.kernel.fail(call, system.number("EADDRNOTAVAIL"), nth=turns[call])
            with pytest.raises(MulticastOSError) as caught:
                system.receiver(groups, "eth0 eth1").open()
            raised += 1
            assert system.kernel.open_sockets() == []
            assert caught.value.errno == system.errno("EADDRNOTAVAIL")
            assert caught.value.step
        assert raised == len(made) >= 10

    def test_a_transmitter(self, system: System, version: int) -> None:
        """The same for each call of a transmitter on two interfaces."""
        family = 2 if version == 4 else 10
        ifaces = [system.interface("eth0"), system.interface("eth1")]
        McastTxSocket(family, [GROUP[version]], ifaces=ifaces, heal=False).open().close()
        made = [call.call for call in system.kernel.calls if call.call in ("socket", "setsockopt", "bind")]
        turns: Counter[str] = Counter()
        for call in made:
            turns[call] += 1
            system.kernel.fail(call, system.number("EADDRNOTAVAIL"), nth=turns[call])
            with pytest.raises(MulticastOSError):
                McastTxSocket(family, [GROUP[version]], ifaces=ifaces, heal=False).open()
            assert system.kernel.open_sockets() == []

    def test_no_more_descriptors(self, system: System, version: int) -> None:
        """EMFILE at the second socket: the text names the limit."""
        system.kernel.fail("socket", system.number("EMFILE"), nth=2)
        with pytest.raises(MulticastOSError, match="limit of open descriptors") as caught:
            system.receiver([GROUP[version], OTHER[version]], "eth0 eth1").open()
        assert caught.value.errno == system.errno("EMFILE")
        assert system.kernel.open_sockets() == []

    def test_an_interface_that_is_gone(self, system: System, version: int) -> None:
        """An IfaceInfo from before it was pulled out: receiving and sending fail and name it, its cause and a cure."""
        known = system.interface("eth1")
        gone = IfaceInfo("gone0", 9, None, *((), known.ip6_addrs[1:]) if version == 6 else (known.ip4_addrs, ()))
        host = system.network.hosts["a"]
        host.interfaces[:] = [one for one in host.interfaces if one.name != "eth1"]
        family = 2 if version == 4 else 10
        for build in (
            lambda: McastRxSocket(family, [GROUP[version]], PORT, gone, heal=False),
            lambda: McastTxSocket(family, [GROUP[version]], gone, heal=False),
        ):
            with pytest.raises(MulticastOSError) as caught:
                build().open()
            assert system.kernel.open_sockets() == []
            assert caught.value.reason, str(caught.value)
            assert caught.value.remedy

    def test_what_fails_after_the_joins(self, system: System, version: int, monkeypatch: pytest.MonkeyPatch) -> None:
        """The watch for interface changes cannot start (no descriptor is left for it): the sockets are closed too."""

        def no_watch(*_: Any, **__: Any) -> None:
            raise OSError(24, "Too many open files")

        monkeypatch.setattr(reception, "watch", no_watch)
        with pytest.raises(OSError, match="Too many open files"):
            system.receiver([GROUP[version]], heal=True).open()
        assert system.kernel.open_sockets() == []


class TestSkippedInterfaces:
    """An interface that was only part of "all" may fail; one that was named may not."""

    def test_one_of_all(self, system: System, version: int) -> None:
        """Skipped with a warning that says which and why; the others are received on."""
        eth1 = system.network.hosts["a"].interface(3)
        assert eth1 is not None
        eth1.multicast = False
        with pytest.warns(MulticastWarning, match=f"Cannot join {GROUP[version]} on eth1.*is skipped"):
            opened = system.receiver([GROUP[version]], None).open()
        system.arrive(GROUP[version], b"lan0", "lan0")
        assert heard(opened) == [b"lan0"]
        opened.close()
        assert system.kernel.open_sockets() == []

    def test_named(self, system: System, version: int) -> None:
        """The same interface, named: an error."""
        eth1 = system.network.hosts["a"].interface(3)
        assert eth1 is not None
        eth1.multicast = False
        with pytest.raises(MulticastOSError, match=f"Cannot join {GROUP[version]} on eth1") as caught:
            system.receiver([GROUP[version]], "eth0 eth1").open()
        assert caught.value.errno == system.errno("EADDRNOTAVAIL")
        assert system.kernel.open_sockets() == []

    def test_none_left(self, system: System, version: int) -> None:
        """When every one of all is refused, the last refusal is the error."""
        for interface in system.network.hosts["a"].interfaces:
            interface.multicast = False
        with pytest.warns(MulticastWarning, match="is skipped"), pytest.raises(MulticastOSError, match="on eth1"):
            system.receiver([GROUP[version]], None).open()
        assert system.kernel.open_sockets() == []

    def test_a_limit_of_the_program_is_no_reason_to_skip(self, system: System, version: int) -> None:
        """Too many groups for the system is not the interface's fault."""
        error = "EMFILE"
        system.kernel.fail("setsockopt", system.number(error), **modern_join(system, version), nth=2)
        with pytest.raises(MulticastOSError, match="limit of open descriptors"):
            system.receiver([GROUP[version]], None).open()
        assert system.kernel.open_sockets() == []


class TestPorts:
    """Programs that keep the port to themselves."""

    def test_held_by_another_program(self, system: System, version: int) -> None:
        """The text says that another program holds the port, and how to find it where the system tells."""
        with system.kernel.socket(system.platform.family(version), 2) as taken:
            if system.is_windows:
                taken.setsockopt(0xFFFF, -5, pack("=i", 1))  # SO_EXCLUSIVEADDRUSE
                taken.bind(("", PORT))
            else:
                taken.bind((GROUP[version], PORT))
            with pytest.raises(MulticastOSError, match=r"(?i)another program holds") as caught:
                system.receiver([GROUP[version]]).open()
            assert caught.value.step == "bind"
            assert caught.value.errno == system.errno("EACCES" if system.is_windows else "EADDRINUSE")
            assert system.kernel.open_sockets() == [taken]


class TestMacOS:
    """What only macOS does."""

    @pytest.fixture
    def macos(self, monkeypatch: pytest.MonkeyPatch) -> System:
        """A Mac."""
        return System("macos", monkeypatch)

    def test_local_network_privacy(self, macos: System, version: int) -> None:
        """Without consent a send fails with "no route to host" (65): the text names the setting."""
        assert isinstance(macos.kernel, FakeMacOS)
        macos.kernel.privacy_denied = True
        with macos.transmitter([GROUP[version]]) as transmitter:
            with pytest.raises(MulticastOSError, match="Privacy & Security, Local Network") as caught:
                transmitter.sendto(b"x", (GROUP[version], PORT))
        assert caught.value.errno == 65
        with macos.transmitter([GROUP[version]], "lo") as transmitter:
            transmitter.sendto(b"x", (GROUP[version], PORT))

    def test_out_of_memory_at_a_join(self, macos: System, version: int) -> None:
        """It happens for a moment under many joins: the text says so."""
        macos.kernel.fail("setsockopt", 12, **modern_join(macos, version))
        with pytest.raises(MulticastOSError, match=r"membership reports.*Try again") as caught:
            macos.receiver([GROUP[version]]).open()
        assert caught.value.errno == 12
        assert macos.kernel.open_sockets() == []
        assert macos.platform is MACOS


class TestWindows:
    """What only Windows does."""

    @pytest.mark.parametrize(
        ("call", "number", "cause"),
        [
            ("bind", 10013, "holds port 5000 exclusively"),
            ("bind", 10048, "holds port 5000 exclusively"),
            ("bind", 10049, "not one of this host's"),
            ("join", 10013, "firewall or security product"),
            ("join", 10022, "bound to another adapter"),
            ("join", 10049, "disconnected, or has no usable address"),
        ],
    )
    def test_winsock_numbers(
        self, call: str, number: int, cause: str, version: int, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """Python renumbers some of them in `errno`; they are explained all the same, and both numbers are kept."""
        windows = System("windows", monkeypatch)
        if call == "join":
            windows.kernel.fail("setsockopt", number, **modern_join(windows, version))
        else:
            windows.kernel.fail(call, number)
        with pytest.raises(MulticastOSError, match=cause) as caught:
            windows.receiver([GROUP[version]]).open()
        assert (caught.value.errno, caught.value.winerror) == (windows.errno(number), number)
        assert windows.kernel.open_sockets() == []

    def test_a_disconnected_adapter(self, version: int, monkeypatch: pytest.MonkeyPatch) -> None:
        """It cannot be joined; the text says to plug it in."""
        windows = System("windows", monkeypatch)
        eth0 = windows.network.hosts["a"].interface(2)
        assert eth0 is not None
        eth0.up = False
        with pytest.raises(MulticastOSError, match="Plug it in") as caught:
            windows.receiver([GROUP[version]]).open()
        assert caught.value.errno == 10049
