"""Avahi on a host of the lab, and questions to it."""

import contextlib
import struct
import subprocess
from collections.abc import Iterator
from pathlib import Path
from time import monotonic

import pytest

from multicast_expert import Datagram, McastSocket
from multicast_expert.testing import Host
from programs import need

PORT = 5353
GROUP = {4: "224.0.0.251", 6: "ff02::fb"}
PATIENCE = 20.0
THEIRS = b"\x05avahi\x05local\x00"
HOST_ADDRESS = {4: 1, 6: 28}
"""The types A and AAAA of DNS records."""
CONFIGURATION = """[server]
host-name=avahi
domain-name=local
use-ipv4=yes
use-ipv6=yes
enable-dbus=no
allow-interfaces=eth0
[wide-area]
enable-wide-area=no
[publish]
publish-hinfo=no
publish-workstation=no
"""


def question(name: bytes, version: int) -> bytes:
    """Ask for the address of a name."""
    return struct.pack("!6H", 0, 0, 1, 0, 0, 0) + name + struct.pack("!HH", HOST_ADDRESS[version], 1)


def is_answer(datagram: Datagram, name: bytes) -> bool:
    """Whether it tells something about the name."""
    return len(datagram.data) > 12 and datagram.data[2] & 0x80 != 0 and name.lower() in datagram.data.lower()


def start_avahi(host: Host, folder: Path) -> "subprocess.Popen[bytes]":
    """Start Avahi on a host, under the name avahi.local."""
    daemon = need("avahi-daemon")
    configuration = folder / "avahi-daemon.conf"
    configuration.write_text(CONFIGURATION)
    # It keeps its process number in a fixed place.
    script = (
        "mount -t tmpfs tmpfs /run && mkdir /run/avahi-daemon && "
        f"exec {daemon} --no-drop-root --no-chroot --no-rlimits -f {configuration}"
    )
    return host.popen(["unshare", "-m", "sh", "-c", script], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)


@contextlib.contextmanager
def avahi(host: Host, folder: Path) -> Iterator[None]:
    """Run Avahi on a host inside the block."""
    running = start_avahi(host, folder)
    try:
        yield
    finally:
        host.end_process(running)


def ask(asker: McastSocket, version: int, name: bytes) -> Datagram:
    """Ask until there is an answer: Avahi takes a while to begin."""
    deadline = monotonic() + PATIENCE
    while monotonic() < deadline:
        for datagram in asker.query(question(name, version), (GROUP[version], PORT), timeout=0.5):
            if is_answer(datagram, name):
                return datagram
    pytest.fail(f"nobody answered for {name!r}")
