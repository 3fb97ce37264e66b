"""Many hosts that ping each other, and the processor time that each takes: all pairs, on one switch.

    PYTHONPATH=tests python -m ping.many --hosts 50 --interval 5 --seconds 40

Each host is a network namespace, `mcast pong` runs on all and `mcast ping` on the first. The neighbours are entries by
hand: the kernel limits those that it learns for all namespaces together (`gc_thresh3`), and pairs of 50 hosts exceed
that. 50 hosts on one machine take the time of 50, so on few processors the interval has to be longer than a second.

What one ping a second to every other host takes is bounded from above: for a server by all that it took, times the
interval; for the first host by what it took, and for the missing pings twice the share of a server, as it is client and
server. Fails above 20 % of a core, or if a pair is not heard; on a machine that is too busy with other things it does.
"""

import argparse
import json
import os
import sys
from concurrent.futures import ThreadPoolExecutor
from ipaddress import ip_address
from pathlib import Path
from time import monotonic, sleep

from multicast_expert.core.addresses import ethernet_address
from multicast_expert.ping.messages import DEFAULT_GROUPS
from multicast_expert.testing import Host, Lab
from multicast_expert.testing.private_network import enter_private_network
from ping.network import plugged, pong, start

MOST = 0.20
"""Of a core."""
MOST_GROUPS = 10
"""Over which pings of many hosts are spread."""
SETTLING = 25.0
"""Seconds until all sessions are there, at most."""


def know_each_other(hosts: list[Host]) -> None:
    """Enter all hosts, and the groups that pings and reports go to, as permanent neighbours of each."""
    usual = ip_address(DEFAULT_GROUPS[4, True])
    groups = [ip_address("224.0.0.22"), *(usual + 256 * number for number in range(MOST_GROUPS))]
    stations = {
        f"10.0.0.{number}": host.run(Path("/sys/class/net/eth0/address").read_text).strip()
        for number, host in enumerate(hosts, 1)
    } | {str(group): ethernet_address(group) for group in groups}
    for own, host in enumerate(hosts, 1):
        host.ip(
            *(
                f"neigh replace {address} lladdr {station} dev eth0 nud permanent"
                for address, station in stations.items()
                if address != f"10.0.0.{own}"
            )
        )


def processor_time(pid: int) -> float:
    """Return the seconds of a processor that a process took so far."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def main() -> int:
    """Measure, and return 1 where a host takes more than its share, or a pair is not heard."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--hosts", type=int, default=50)
    parser.add_argument("--seconds", type=float, default=40.0)
    parser.add_argument("--interval", type=float, default=5.0)
    wanted = parser.parse_args()
    enter_private_network()
    with Lab() as lab:
        hosts = plugged(lab, lab.switch("switch"), wanted.hosts)
        know_each_other(hosts)
        with ThreadPoolExecutor(4) as pool:
            servers = list(pool.map(lambda host: pong(host, "-4"), hosts))
        addresses = [f"10.0.0.{number}" for number in range(1, wanted.hosts + 1)]
        settling = SETTLING + wanted.interval
        duration = settling + wanted.seconds
        words = ["-i", str(wanted.interval), "--for", str(duration), "-W", str(duration), "-q", "--json", "--no-doctor"]
        client = start(hosts[0], *addresses, *words)
        sleep(settling)
        began, watched = monotonic(), [*servers, client]
        before = [processor_time(each.pid) for each in watched]
        sleep(wanted.seconds)
        took = [processor_time(each.pid) - earlier for each, earlier in zip(watched, before, strict=True)]
        seconds = monotonic() - began
        output, _ = client.communicate(timeout=60)
        said = set(output.splitlines()[:-1])
        for each in servers:
            each.terminate()
            said.update(line for line in each.communicate(timeout=60)[1].splitlines() if "not" in line)
    pairs = json.loads(output.splitlines()[-1])["pairs"]
    heard = sum(each["multicast"] > 0 and each["unicast"] > 0 for each in pairs)
    first, *others = ((took[0] + took.pop()) / seconds, *(each / seconds for each in took[1:]))
    for line in sorted(said)[:8]:
        print(line)
    print(f"{heard:,} of {len(pairs):,} pairs of {wanted.hosts} hosts heard by unicast and multicast")
    print(
        f"every {wanted.interval:g} s: the first host took {first:.1%} of a core, the others {max(others):.1%} at most"
    )
    most = max(others) * wanted.interval
    of_first = first + 2 * most * (1 - 1 / wanted.interval)
    print(f"at one ping a second: the first host takes less than {of_first:.1%}, the others less than {most:.1%}")
    return int(max(most, of_first) > MOST or heard < wanted.hosts * (wanted.hosts - 1))


if __name__ == "__main__":
    sys.exit(main())
