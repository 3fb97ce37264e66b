"""The screens of the pages: what the commands show on a host of the laboratory."""

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import chdir, contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import NamedTuple

from multicast_expert.testing import Host, Lab, wait_until

MCAST = [sys.executable, "-m", "multicast_expert"]
FOLDER = Path(__file__).parent.parent / "docs" / "screens"
GROUP = "239.1.2.3:5000%eth0"
RECORDING = "day.pcapng"
"""A file that `mcast record` writes on these screens."""

REPORTS = 3
"""Seconds in which a host repeats its reports of a group that it joined (RFC 3810, 9.11: twice, a second apart)."""


class Network(NamedTuple):
    """Two hosts and a cable: `desk`, where the commands run, and `camera`, which sends."""

    desk: Host
    camera: Host


class Screen(NamedTuple):
    """What one page shows: command lines, and what happens while they run."""

    scene: Callable[[Network], object]
    lines: tuple[str, ...]


@contextmanager
def network() -> Iterator[Network]:
    """Inside the block there is a network of two hosts, and the current directory is an empty one."""
    with TemporaryDirectory() as place, chdir(place), Lab() as lab:
        desk, camera = lab.host("desk"), lab.host("camera")
        lab.link(desk, camera, ipv4=("10.9.0.1/24", "10.9.0.7/24"), ipv6=("fd09::1/64", "fd09::7/64"))
        desk.ip("route add default via 10.9.0.254", "route add default via fd09::ffff")
        camera.ip("route add default dev eth0")
        desk.allow_ipv6_loopback()
        yield Network(desk, camera)


# Scenes: each prepares the network for one screen, which has a network of its own


def silence(_: Network) -> None:
    """Nothing happens."""


def stream(places: Network) -> None:
    """The camera sends a numbered stream; it has begun when this returns."""
    start(places.camera, "send", GROUP, "--stamp", "-s", "1316", "--rate", "40pps", "-c", "0", "frame")
    wait_until(lambda: _bytes_sent(places.camera) > 10 * 1316, "the camera sends")


def _bytes_sent(host: Host) -> int:
    (eth0,) = json.loads(host.command("ip", "-j", "-s", "link", "show", "dev", "eth0"))
    size: int = eth0["stats64"]["tx"]["bytes"]
    return size


def stream_alone(places: Network) -> None:
    """The same, and the hosts report the groups of their own addresses no more, as they do at first."""
    stream(places)
    time.sleep(REPORTS)


def members(places: Network) -> None:
    """Programs on the desk have joined groups: from all, from one source, from all but one, and one in vain."""
    for words in ("10.9.0.7@232.1.2.3:5001%eth0", GROUP, f"{GROUP} --exclude 10.9.0.9", "[ff15::1234]:5002%eth0"):
        _until_ready(places.desk, [*MCAST, "recv", "-q", *words.split()])
    _until_ready(places.desk, [sys.executable, "-c", DEAF_PROGRAM])


DEAF_PROGRAM = """
import socket, sys, time
with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as deaf:
    deaf.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    deaf.bind(("10.9.0.1", 5000))
    deaf.setsockopt(socket.IPPROTO_IP, socket.IP_ADD_MEMBERSHIP, socket.inet_aton("239.1.2.3") + bytes(4))
    print("ready", file=sys.stderr, flush=True)
    time.sleep(60)
"""
"""A program that joins with a socket that is bound to an address of its host."""


def _until_ready(desk: Host, command: list[str]) -> None:
    """Start a program on the desk, and return when it has said something."""
    program = desk.popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
    program.stderr.readline()


def joins(places: Network) -> None:
    """The camera asks for members, and a program on it joins and leaves."""
    start(places.camera, "querier", "-i", "eth0", "-4", beforehand="sleep 1")
    start(places.camera, "recv", "-q", GROUP, "-W", "3", beforehand="sleep 2")


def filtered(places: Network) -> None:
    """The camera sends from an address that the desk, whose filter is strict, has no route to."""
    address = places.camera.add_unroutable_address("eth0", "172.16.5.5/32")
    places.desk.set_reverse_path_filter("all", 1)
    places.desk.ip("route del default via 10.9.0.254")
    start(places.camera, "send", "239.1.2.3:5000", "-i", address, "-c", "0", "--rate", "10pps", "frame")


def overflow(places: Network) -> None:
    """A program on the desk has joined the stream and does not read it."""
    places.desk.join_and_never_read("239.1.2.3", 5000, interface="eth0", buffer=4096)
    stream(places)


def recorded(places: Network) -> None:
    """There is a recording of half a second."""
    stream(places)
    places.desk.run(subprocess.run, [*MCAST, "record", RECORDING, GROUP, "-c", "20"], capture_output=True, check=True)


def start(host: Host, *arguments: str, beforehand: str = "true") -> None:
    """Start `mcast` on a host, behind another command."""
    host.popen(
        ["sh", "-c", f'{beforehand}; exec "$@"', "sh", *MCAST, *arguments],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )


def answering(places: Network) -> None:
    """The camera answers pings."""
    start(places.camera, "pong")


def bridged(places: Network) -> None:
    """The camera has a bridge to a network of its own, with a stream in it."""
    start(places.camera, "send", "239.1.2.3:5000%lo", "-s", "1000", "--rate", "40pps", "-c", "0", "frame")
    words = ("bridge", "239.1.2.3:5000", "-i", "lo", "--listen", "tcp/10.9.0.7:7447", "--name", "plant", "--ttl", "4")
    _until_ready(places.camera, [*MCAST, *words])


SCREENS = {
    "demo": Screen(silence, ("mcast demo",)),
    "interfaces": Screen(silence, ("mcast interfaces",)),
    "groups": Screen(members, ("sudo mcast groups -i eth0",)),
    "recv": Screen(stream, ("mcast recv 239.1.2.3:5000 -c 3",)),
    "recv-measure": Screen(stream, (f"mcast recv -q --every 1 {GROUP} -W 3 --max-loss 0.1",)),
    "send": Screen(
        silence,
        (f"mcast send {GROUP} 'hello there'", f"mcast send {GROUP} --stamp -s 1400 --rate 5Mbps --for 1"),
    ),
    "record": Screen(stream, (f"mcast record {RECORDING} {GROUP} --for 2", f"tshark -r {RECORDING} -c 2 2>/dev/null")),
    "replay": Screen(recorded, (f"mcast replay {RECORDING} -i eth0",)),
    "doctor": Screen(filtered, (f"sudo mcast doctor {GROUP} --listen 2",)),
    "drops": Screen(overflow, ("sudo mcast drops --for 2",)),
    "top": Screen(stream, ("sudo mcast top --for 2 | cat",)),
    "scan": Screen(stream_alone, ("sudo mcast scan -i eth0 --for 3",)),
    "watch": Screen(joins, ("sudo mcast watch 239.1.2.3 -i eth0 --for 7",)),
    "querier": Screen(silence, ("sudo mcast querier -i eth0 -4 --for 1",)),
    "ping": Screen(answering, ("mcast ping 10.9.0.7 -c 5",)),
    "pong": Screen(silence, ("mcast pong --for 1",)),
    "bridge": Screen(
        bridged, ("mcast bridge 239.1.2.3:5000 -i eth0 --connect tcp/10.9.0.7:7447 --name office --for 5",)
    ),
    "plan": Screen(silence, ("mcast plan 239.1.2.3:5000%eth0",)),
    "completion": Screen(silence, ("mcast completion zsh --line 'mcast recv -i e'",)),
}


def draw(screen: Screen) -> str:
    """Return what a terminal shows: each command line behind a prompt, and what the command writes."""
    with network() as places:
        screen.scene(places)
        return "".join(f"$ {line}\n{_written(places.desk, line)}" for line in screen.lines)


def _written(desk: Host, line: str) -> str:
    """Return what a command line writes on the desk, to both of its streams."""
    environment = os.environ | {"COLUMNS": "80", "NO_COLOR": "1", "PYTHONUNBUFFERED": "1"}
    shell = f'mcast() {{ {" ".join(MCAST)} "$@"; }}; {line.removeprefix("sudo ")}'
    done = desk.run(
        subprocess.run,
        ["sh", "-c", shell],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=30,
        env=environment,
        check=False,
    )
    return str(done.stdout)


def write(names: list[str]) -> None:
    """Write the screens of these names into the folder of the documents."""
    FOLDER.mkdir(exist_ok=True)
    for name in names:
        (FOLDER / f"{name}.txt").write_text(draw(SCREENS[name]), encoding="utf-8")
