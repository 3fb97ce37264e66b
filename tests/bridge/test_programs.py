"""Programs that others wrote, at sites without multicast between them: iperf 2, socat, ffmpeg, zeroconf and Avahi."""

import re
import socket
import subprocess
import sys
from pathlib import Path
from statistics import median
from time import monotonic, sleep

import pytest

from both_ways.avahi import GROUP as MDNS
from both_ways.avahi import PORT as MDNS_PORT
from both_ways.avahi import THEIRS, ask, avahi
from bridge.network import ENDPOINTS, FAMILIES, GROUPS, HUB, PORT, bridge, hub_and_spokes, sites
from multicast_expert import McastSocket, McastTxSocket
from multicast_expert.bridge import receiver
from multicast_expert.testing import wait_until

pytestmark = [pytest.mark.usefixtures("lab"), pytest.mark.slow]
versions = pytest.mark.parametrize("version", [4, 6], ids=["IPv4", "IPv6"])


@versions
def test_iperf(version: int) -> None:
    """A second of them fits into its own buffer: none is lost or out of order at two other sites."""
    iperf = ["iperf", "-u", "-p", str(PORT), *(["-V"] if version == 6 else [])]
    with sites(1, 1, 1) as places:
        hub_and_spokes(places)
        for place in places:
            place.host.ip("route add 224.0.0.0/4 dev eth0")
        group = GROUPS[version] + ("%eth0" if version == 6 else "")
        serve = [*iperf, "-s", "-B", group, "-t", "8"]
        servers = [each.host.popen(serve, stdout=subprocess.PIPE, text=True) for each in places[1:]]
        sleep(1.0)
        places[0].host.command(*iperf, "-c", group, "-T", "8", "-l", "1000", "-b", "800K", "-t", "3")
        for server in servers:
            text, _ = server.communicate(timeout=30)
            lost, total = map(int, re.findall(r"(\d+)/ *(\d+) \(", text)[0])
            assert lost == 0, text
            assert total > 250, text
            assert "out-of-order" not in text, text


def test_socat_and_its_source(tmp_path: Path) -> None:
    """What socat sends from a port, socat receives at the other site, from that address and port."""
    with sites(1, 1) as places:
        hub_and_spokes(places, "--keep-source")
        heard = tmp_path / "heard"
        places[1].host.set_reverse_path_filter("eth0", 0)
        listens = f"UDP4-RECVFROM:{PORT},reuseaddr,ip-add-membership={GROUPS[4]}:10.2.0.100,fork"
        places[1].host.popen(
            ["socat", listens, f"SYSTEM:echo $SOCAT_PEERADDR $SOCAT_PEERPORT >> {heard}; cat >> {heard}"]
        )
        sleep(0.5)
        sends = f"UDP4-DATAGRAM:{GROUPS[4]}:{PORT},ip-multicast-ttl=8,ip-multicast-if=10.1.0.100,bind=10.1.0.100:4711"
        places[0].host.command("socat", "-u", "-", sends, stdin="hello from site 1\n")
        wait_until(lambda: heard.exists() and heard.read_text().endswith("site 1\n"), "socat heard it")
        assert heard.read_text() == "10.1.0.100 4711\nhello from site 1\n"


def test_ffmpeg() -> None:
    """A transport stream arrives whole: ffmpeg at the other site finds no error in it."""
    ffmpeg = ["ffmpeg", "-hide_banner", "-nostdin"]
    with sites(1, 1) as places:
        hub_and_spokes(places)
        address = f"udp://{GROUPS[4]}:{PORT}"
        watch = [*ffmpeg, "-v", "warning", "-i", f"{address}?localaddr=10.2.0.100&timeout=9000000", "-t", "3"]
        watching = places[1].host.popen([*watch, "-f", "null", "-"], stderr=subprocess.PIPE, text=True)
        play = ["-re", "-f", "lavfi", "-i", "testsrc=size=320x240:rate=25", "-t", "8", "-c:v", "mpeg2video"]
        to = f"{address}?localaddr=10.1.0.100&ttl=8&pkt_size=1316"
        places[0].host.popen([*ffmpeg, "-v", "error", *play, "-f", "mpegts", to], stderr=subprocess.DEVNULL)
        _, text = watching.communicate(timeout=40)
        assert watching.returncode == 0, text
        assert not re.search("corrupt|discontinu|error", text, re.IGNORECASE), text


ZEROCONF = """
import socket, sys, time
from zeroconf import ServiceBrowser, ServiceInfo, Zeroconf
own, role = sys.argv[1:]
zeroconf = Zeroconf(interfaces=[own])
kind = "_mcast-test._tcp.local."
if role == "serve":
    addresses = [socket.inet_aton(own)]
    zeroconf.register_service(ServiceInfo(kind, f"there.{kind}", 80, addresses=addresses, server="there.local."))
    print("ready", flush=True)
    time.sleep(30)
else:
    deadline = time.monotonic() + 20
    while time.monotonic() < deadline:
        found = zeroconf.get_service_info(kind, f"there.{kind}", timeout=1000)
        if found:
            print(found.parsed_addresses())
            break
    zeroconf.close()
"""


def test_discovery_by_zeroconf() -> None:
    """A service of one site is found at another by mDNS, without a word about it anywhere."""
    pytest.importorskip("zeroconf")
    with sites(1, 1) as places:
        running = [
            bridge(places[0].gates[0], "--listen", HUB, "--discovery", endpoints=[]),
            bridge(places[1].gates[0], "--connect", HUB, "--discovery", endpoints=[]),
        ]
        for each in running:
            each.status(lambda status: len(status["groups"]) == 7 and status["groups"][0]["wanted_by"], "carries them")
        command = [sys.executable, "-c", ZEROCONF]
        server = places[0].host.popen([*command, "10.1.0.100", "serve"], stdout=subprocess.PIPE, text=True)
        assert server.stdout is not None
        assert server.stdout.readline() == "ready\n"
        assert places[1].host.command(*command, "10.2.0.100", "browse").strip() == "['10.1.0.100']"


def test_avahi(tmp_path: Path) -> None:
    """A name that Avahi has at one site is found at another."""
    with sites(1, 1) as places, avahi(places[0].host, tmp_path):
        for gate, place in ((places[0].gates[0], "--listen"), (places[1].gates[0], "--connect")):
            running = bridge(gate, place, HUB, "--discovery", endpoints=[])
        running.status(lambda status: status["groups"] and status["groups"][0]["wanted_by"], "carries them")
        with (
            places[1].host.entered(),
            McastSocket(socket.AF_INET, [MDNS[4]], MDNS_PORT, iface="eth0", ttl=255) as asker,
        ):
            assert socket.inet_aton("10.1.0.100") in ask(asker, 4, THEIRS).data


PARTICIPANT = """
import socket, sys, time
own, wanted = sys.argv[1], int(sys.argv[2])
group, port = "239.255.0.1", 7400
sock = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
sock.bind(("", port))
sock.setsockopt(socket.IPPROTO_IP, socket.IP_ADD_MEMBERSHIP, socket.inet_aton(group) + socket.inet_aton(own))
sock.setsockopt(socket.IPPROTO_IP, socket.IP_MULTICAST_IF, socket.inet_aton(own))
sock.settimeout(0.1)
known, until = set(), time.monotonic() + 30
while time.monotonic() < until:
    sock.sendto(b"I am at " + own.encode(), (group, port))
    try:
        while True:
            known.add(sock.recv(100).removeprefix(b"I am at ").decode())
    except TimeoutError:
        pass
    if len(known) == wanted:
        # Others may not know this one yet.
        until = min(until, time.monotonic() + 2)
print(*sorted(known))
"""


def test_participants_announce_themselves() -> None:
    """As those of ROS do (RTPS), with the usual TTL of 1: at three sites each finds all others."""
    with sites(1, 1, 1) as places:
        hub_and_spokes(places, "--ttl", "2", endpoints=["239.255.0.1:7400"])
        addresses = [f"10.{place.number}.0.100" for place in places]
        words = [sys.executable, "-c", PARTICIPANT]
        running = [
            place.host.popen([*words, address, str(len(places))], stdout=subprocess.PIPE, text=True)
            for place, address in zip(places, addresses, strict=True)
        ]
        for each in running:
            assert each.communicate(timeout=60)[0].split() == addresses


def test_from_a_join_to_the_first_datagram() -> None:
    """Less than a quarter of a second, mostly: another site hears of the wish, joins, and sends."""
    with sites(1, 1) as places:
        first = bridge(places[0].gates[0], "--listen", HUB)
        first.status(lambda status: status["speaking"], "speaks")
        with places[0].host.entered(), McastTxSocket(FAMILIES[4], iface="eth0", ttl=8) as tx:
            taken = []
            for number in range(7):
                first.status(lambda status: not status["sites"], "is alone")
                with places[1].gates[0].entered():
                    rx = receiver(ENDPOINTS[0], [HUB])
                    began = monotonic()
                    rx.open()
                while True:
                    tx.sendto(b"%d" % number, (GROUPS[4], PORT))
                    try:
                        rx.receive(timeout=0.002)
                        break
                    except TimeoutError:
                        assert monotonic() < began + 5
                taken.append(monotonic() - began)
                rx.close()
        assert median(taken) < 0.25, taken
