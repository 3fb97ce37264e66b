"""Many hosts that ping each other, and the processor time that each takes: all pairs, on one switch.

    PYTHONPATH=tests python -m ping.many --hosts 50 --interval 5 --seconds 40

Each host is a network namespace, `mcast pong` runs on all and `mcast ping` on the first. The neighbours are entries by
hand: the kernel limits those that it learns for all namespaces together (`gc_thresh3`), and pairs of 50 hosts exceed
that. 50 hosts on one machine take the time of 50, so on few processors the interval has to be longer than a second. The
time of a host, without its start, is therefore divided by the rate, and given as the share of a core that one ping a
second to every other host takes. Fails above 20 %, or if a pair is not heard.
"""

import argparse
import json
import os
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from time import monotonic, sleep

from multicast_expert.testing import Host, Lab
from multicast_expert.testing.private_network import enter_private_network
from ping.network import plugged, pong, start

MOST = 0.20
"""Of a core."""
SETTLING = 15.0
"""Seconds until all sessions are there, at most."""


def know_each_other(hosts: list[Host]) -> None:
    """Enter all hosts as permanent neighbours of each."""
    stations = {
        f"10.0.0.{number}": host.run(Path("/sys/class/net/eth0/address").read_text).strip()
        for number, host in enumerate(hosts, 1)
    }
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
        duration = SETTLING + wanted.seconds
        words = ["-i", str(wanted.interval), "--for", str(duration), "-W", str(duration), "-q", "--json", "--no-doctor"]
        client = start(hosts[0], *addresses, *words)
        sleep(SETTLING)
        began = monotonic()
        measured = [*servers, client]
        before = [processor_time(each.pid) for each in measured]
        sleep(wanted.seconds)
        took = [processor_time(each.pid) - earlier for each, earlier in zip(measured, before, strict=True)]
        took[0] += took.pop()
        seconds = monotonic() - began
        output, _ = client.communicate(timeout=60)
        pairs = json.loads(output.splitlines()[-1])["pairs"]
    print(f"{len(pairs):,} pairs of {wanted.hosts} hosts in {seconds:.1f} s on {os.cpu_count()} processors")
    heard = [each for each in pairs if each["multicast"] and each["unicast"]]
    rate = sum(each["queries"] for each in pairs) / max(1, len(pairs)) / duration
    shares = [each / seconds / rate for each in took]
    print(f"{rate:.2f} pings a second of each pair; {len(heard):,} pairs heard by unicast and multicast")
    print(f"the first host, with client and server: {shares[0]:.1%} of a core at one ping a second")
    print(f"the others: {sum(shares[1:]) / len(shares[1:]):.1%} on average, {max(shares[1:]):.1%} at most")
    return int(max(shares) > MOST or len(heard) < wanted.hosts * (wanted.hosts - 1))


if __name__ == "__main__":
    sys.exit(main())
