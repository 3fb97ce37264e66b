"""Hosts on a switch, and `mcast pong` and `mcast ping` on them as programs."""

import json
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple

from multicast_expert.testing import Host, Lab, Switch
from programs import MCAST


class Done(NamedTuple):
    """What a ping gave."""

    status: int
    text: str

    @property
    def objects(self) -> list[dict[str, Any]]:
        """The objects of --json."""
        return [json.loads(line) for line in self.text.splitlines()]

    @property
    def summary(self) -> dict[str, Any]:
        """The last of them."""
        return self.objects[-1]

    @property
    def kinds(self) -> set[str]:
        """The kinds of the findings of the verdict."""
        return {each["kind"] for each in self.summary["verdict"]}


def plugged(lab: Lab, switch: Switch, count: int) -> list[Host]:
    """So many hosts on a switch, 10.0.0.1 and fd00::1 the first."""
    hosts = []
    for number in range(1, count + 1):
        host = lab.host(f"host{number}")
        lab.plug(host, switch, ipv4=f"10.0.0.{number}/24", ipv6=f"fd00::{number}/64")
        hosts.append(host)
    return hosts


def pong(host: Host, *arguments: str) -> subprocess.Popen[str]:
    """Start a server, and return when it serves."""
    process: subprocess.Popen[str] = host.popen([*MCAST, "pong", *arguments], stderr=subprocess.PIPE, text=True)
    assert process.stderr is not None
    line = process.stderr.readline()
    assert "answering" in line, line + process.stderr.read()
    return process


def start(host: Host, *arguments: str) -> subprocess.Popen[str]:
    """Start a ping."""
    words = [*MCAST, "ping", *arguments]
    process: subprocess.Popen[str] = host.popen(words, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    return process


def ended(process: subprocess.Popen[str]) -> Done:
    """Wait for its end."""
    text, _ = process.communicate(timeout=60)
    return Done(process.returncode, text)


def ping(host: Host, *arguments: str) -> Done:
    """Ping to the end."""
    return ended(start(host, *arguments))


@contextmanager
def two_hosts(**switch: Any) -> Iterator[tuple[Host, Host, Switch]]:
    """Two hosts on a switch."""
    with Lab() as lab:
        made = lab.switch("switch", **switch)
        first, second = plugged(lab, made, 2)
        yield first, second, made
