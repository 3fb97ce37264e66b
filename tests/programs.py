"""The programs that the tests use beside Python: a test that meets a missing program is skipped, and says which."""

import re
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from multicast_expert.testing.private_network import find_tool

MCAST = [sys.executable, "-W", "error", str(Path(__file__).with_name("watched.py")), "multicast_expert"]
"""The words of `mcast`, to which a warning is an error, and which ends when one of its threads dies."""

PACKAGES = {
    **dict.fromkeys(["bridge", "ip", "ss", "tc"], "iproute2"),
    **dict.fromkeys(["iptables", "iptables-legacy", "iptables-nft", "ip6tables"], "iptables"),
    **dict.fromkeys(["kill", "pgrep", "ps", "sysctl"], "procps"),
    **dict.fromkeys(["capinfos", "dumpcap", "editcap", "tshark"], "tshark"),
    **dict.fromkeys(["smcroutectl", "smcrouted"], "smcroute"),
    **dict.fromkeys(["asmping", "ssmping", "ssmpingd"], "ssmping"),
    **dict.fromkeys(["cc", "gcc"], "gcc"),
    "avahi-daemon": "avahi-daemon",
    "ffmpeg": "ffmpeg",
    "fish": "fish",
    "iperf": "iperf",
    "mandoc": "mandoc",
    "minidlnad": "minidlna",
    "multicat": "multicat",
    "musl-gcc": "musl-tools",
    "nft": "nftables",
    "openssl": "openssl",
    "ptp4l": "linuxptp",
    "setpriv": "util-linux",
    "socat": "socat",
    "systemd-analyze": "systemd",
    "tcpdump": "tcpdump",
    "unshare": "util-linux",
    "vtysh": "frr",
    "valgrind": "valgrind",
    "zsh": "zsh",
}
"""The Debian package of each."""


def chain(error: BaseException) -> Iterator[BaseException]:
    """Yield the error, and those that led to it."""
    waiting, seen = [error], set()
    while waiting:
        link = waiting.pop()
        if id(link) in seen:
            continue
        seen.add(id(link))
        yield link
        waiting += [cause for cause in (link.__cause__, link.__context__) if cause is not None]
        waiting += getattr(link, "exceptions", ())


# PermissionError: a directory of the PATH is closed to this user
IN_A_CHILD = [
    re.compile(r"(?:FileNotFoundError|PermissionError): \[Errno \d+\] [\w ]+: '([\w-]+)'"),
    re.compile(r"sh: (?:\d+|line \d+): ([\w-]+): (?:command )?not found"),
]
"""What a program of ours, or a shell, has written when it missed another, and a test has put into its failure."""


def missing_program(error: BaseException) -> str | None:
    """Return why the test that ended with this error cannot run here, or None if no program is missing.

    The program may be missing to this process, or to one that the test has started.
    """
    for link in chain(error):
        names = [name for said in IN_A_CHILD for name in said.findall(str(link))]
        if isinstance(link, FileNotFoundError | PermissionError):
            names.append(link.filename)
        for name in names:
            if name in PACKAGES and find_tool(name) is None:
                return f"the program `{name}` is not installed (Debian package {PACKAGES[name]})"
    return None


def need(name: str) -> str:
    """Return the path of the program; skip the test where it is not installed."""
    path = find_tool(name)
    if path is None:
        pytest.skip(f"the program `{name}` is not installed (Debian package {PACKAGES[name]})")
    return path
