"""`sendto` to an address that it has sent to before: sooner with the extension, and with the same checks and errors."""

import contextlib
import os
import socket
import threading
from types import SimpleNamespace
from typing import Any

import pytest

from linux.judges import GROUP, PORT, Network, both_forms, both_versions, dispatching, running_as, telling_hop_limits
from linux.plain_sockets import FAMILY
from multicast_expert import McastTxSocket, MulticastExpertError, MulticastOSError, extension
from multicast_expert.testing import Host

needs_extension = pytest.mark.skipif(extension.native is None, reason="the extension is not there")


@both_forms
@both_versions
class TestSameAsTheFirst:
    """What is said of a datagram does not depend on those before it."""

    @pytest.mark.parametrize("port", [float(PORT), True, 0, 65536, None, "5000"])
    def test_ports(self, network: Network, form: str, version: int, port: Any) -> None:
        """A port that is none is refused, also one that equals the known one."""
        with dispatching(form, version) as transmitter:
            for _ in range(3):
                transmitter.sendto(b"x", (GROUP[version], PORT))
                with pytest.raises(MulticastExpertError, match="port"):
                    transmitter.sendto(b"refused", (GROUP[version], port))
        assert network.judges[version, "eth0"].heard()[0] == [b"x"] * 3

    @pytest.mark.parametrize("hop_limit", [1.0, -1, 256, 2**70, "1"])
    def test_hop_limits(self, network: Network, form: str, version: int, hop_limit: Any) -> None:
        """So is a hop limit that is none, also as the transmitter's own."""
        with dispatching(form, version) as transmitter:
            for _ in range(3):
                transmitter.sendto(b"x", (GROUP[version], PORT))
                with pytest.raises(MulticastExpertError, match="out of range"):
                    transmitter.sendto(b"refused", (GROUP[version], PORT), hop_limit=hop_limit)
            transmitter.ttl = hop_limit
            with pytest.raises(MulticastExpertError, match="out of range"):
                transmitter.sendto(b"refused", (GROUP[version], PORT))
        assert network.judges[version, "eth0"].heard()[0] == [b"x"] * 3

    @pytest.mark.parametrize("kind", [bytes, bytearray, memoryview])
    def test_kinds_of_payloads(self, network: Network, form: str, version: int, kind: type) -> None:
        """Whatever can be read as bytes goes, empty or not; a text does not."""
        with dispatching(form, version) as transmitter:
            for payload in (b"1", b"", b"333"):
                transmitter.sendto(kind(payload), (GROUP[version], PORT))
            with pytest.raises(TypeError):
                transmitter.sendto("text", (GROUP[version], PORT))  # type: ignore[arg-type]  # what the test is about
        assert network.judges[version, "eth0"].heard()[0] == [b"1", b"", b"333"]

    def test_refusals(self, network: Network, form: str, version: int) -> None:
        """The error is the same, word for word, and the socket goes on."""
        host = network.near.node
        assert isinstance(host, Host)

        def refusal(payload: bytes) -> tuple[str, int | None, str]:
            with pytest.raises(MulticastOSError) as caught:
                transmitter.sendto(payload, (GROUP[version], PORT))
            assert isinstance(caught.value.__cause__, OSError)
            return str(caught.value), caught.value.errno, caught.value.step

        too_long = bytes(65_536)
        with dispatching(form, version) as transmitter:
            with host.firewall_drop("multicast-udp", direction="output"):
                firewall, length = refusal(b"1"), refusal(too_long)
            transmitter.sendto(b"1", (GROUP[version], PORT))
            with host.firewall_drop("multicast-udp", direction="output"):
                assert (refusal(b"1"), refusal(too_long)) == (firewall, length)
            transmitter.sendto(b"2", (GROUP[version], PORT))
        assert network.judges[version, "eth0"].heard()[0] == [b"1", b"2"]

    def test_closed(self, network: Network, form: str, version: int) -> None:
        """A closed transmitter sends nothing, also where something else has its descriptor; opened again, it sends."""
        with running_as(form), contextlib.ExitStack() as opened:
            transmitter = McastTxSocket(FAMILY[version], [GROUP[version]], "eth0")
            with transmitter:
                descriptor = transmitter.fileno()
                transmitter.sendto(b"1", (GROUP[version], PORT))
            heir = opened.enter_context(socket.socket(FAMILY[version], socket.SOCK_DGRAM))
            if heir.fileno() != descriptor:
                os.dup2(heir.fileno(), descriptor)
                opened.callback(os.close, descriptor)
            with pytest.raises(MulticastExpertError, match="not open"):
                transmitter.sendto(b"2", (GROUP[version], PORT))
            with transmitter:
                transmitter.sendto(b"3", (GROUP[version], PORT))
        assert network.judges[version, "eth0"].heard()[0] == [b"1", b"3"]

    def test_threads(self, network: Network, form: str, version: int) -> None:
        """Of threads that send one by one, beside others that send many, each has its own hop limit and its order."""

        def send(hop_limit: int) -> None:
            payloads = [b"%d %d" % (hop_limit, number) for number in range(50)]
            if hop_limit == 40:
                transmitter.send_many(payloads, (GROUP[version], PORT), hop_limit=hop_limit)
                return
            for payload in payloads:
                transmitter.sendto(payload, (GROUP[version], PORT), hop_limit=hop_limit)

        with telling_hop_limits(network.judges[version, "eth0"].plain, version) as receive:
            with dispatching(form, version) as transmitter:
                threads = [threading.Thread(target=send, args=(hop_limit,)) for hop_limit in (10, 10, 20, 40)]
                for thread in threads:
                    thread.start()
                for thread in threads:
                    thread.join()
            received = receive(200)
        assert sorted(received[10]) == sorted([*range(50)] * 2)
        assert received[20] == received[40] == [*range(50)]


@needs_extension
@both_versions
class TestTheShortWay:
    """What the extension does."""

    def test_it_is_taken(self, network: Network, version: int, monkeypatch: pytest.MonkeyPatch) -> None:
        """From the second datagram to an address on, over one interface; not where there are several."""
        taken: list[bool] = []
        native = extension.native
        assert native is not None

        class Watched:
            def __init__(self, descriptor: int, hop_limit: int) -> None:
                self._shortcut = native.Shortcut(descriptor, hop_limit)
                self.learn = self._shortcut.learn
                self.set_hop_limit = self._shortcut.set_hop_limit

            def send(self, *arguments: Any) -> bool:
                taken.append(self._shortcut.send(*arguments))
                return taken[-1]

        monkeypatch.setattr(extension, "native", SimpleNamespace(**{**vars(native), "Shortcut": Watched}))
        for ifaces, expected in ((["eth0"], [True, False, True]), (["eth0", "lo"], [])):
            taken.clear()
            with McastTxSocket(FAMILY[version], [GROUP[version]], ifaces=ifaces) as transmitter:
                for port in (PORT, PORT, PORT + 1, PORT):
                    transmitter.sendto(b"x", (GROUP[version], port))
            assert taken == expected

    def test_what_it_knows(self, network: Network, version: int) -> None:
        """It sends to addresses that it was told, with the hop limit that it has, and forgets none too early."""
        assert extension.native is not None
        group = GROUP[version]
        with McastTxSocket(FAMILY[version], [group], "eth0") as transmitter:
            shortcut = extension.native.Shortcut(transmitter.fileno(), 1)
            assert not shortcut.send(b"x", (group, PORT), 1)
            shortcut.learn((group, PORT))
            for port in range(10_000, 11_000):
                shortcut.learn((group, port))
            shortcut.learn([group, PORT + 1])
            shortcut.learn(("no address", PORT))
            for address in ((group, float(PORT)), [group, PORT], (group,), (group, PORT + 1), ("no address", PORT)):
                assert not shortcut.send(b"x", address, 1)
            for hop_limit in (0, 2, -1, True, 1.0, 2**70, None):
                assert not shortcut.send(b"x", (group, PORT), hop_limit)
            assert shortcut.send(b"went", (group, PORT), 1)
            with pytest.raises(OSError, match="too long"):
                shortcut.send(bytes(65_536), (group, PORT), 1)
            shortcut.set_hop_limit(-1)
            assert not shortcut.send(b"x", (group, PORT), 1)
            assert not shortcut.send(b"x", (group, PORT), -1)
            with pytest.raises(TypeError):
                shortcut.send(b"x", (group, PORT))
            with pytest.raises(TypeError):
                shortcut.set_hop_limit("1")
        assert network.judges[version, "eth0"].heard()[0] == [b"went"]
