"""Mutated messages of multicast ping, for the parser, the server and the client.

`PYTHONPATH=tests python -m ping.mutations --count 1000000` runs as many as it says.
"""

import argparse
import time
from ipaddress import ip_address
from random import Random

from multicast_expert.ping.conversation import Conversation
from multicast_expert.ping.measuring import read_report, read_request
from multicast_expert.ping.messages import CLIENT_TIME, SERVER_TIME, MalformedMessageError, parse_message
from multicast_expert.ping.queries import Arrived
from multicast_expert.ping.server import STRANGERS_RATE, PingServer, ServerSettings
from multicast_expert.ping.wish import Wish
from mutating import mutated
from ping.recorded import FORMS

MOST = 50
"""How many clients the server remembers here."""
IDENTITY = bytes.fromhex("0102030405060708")


class Machines:
    """A server and a client that mutated messages go to, and what holds whatever they are."""

    def __init__(self) -> None:
        self.server = PingServer(ServerSettings(most_clients=MOST), b"secret")
        self.client = Conversation(ip_address("10.0.0.2"), Wish(), IDENTITY, 0.0)
        self.parsed = self.strangers = 0

    def take(self, data: bytes, number: int) -> None:
        """Give them one message."""
        now = number / 10_000
        client = (f"10.{number % 7}.0.{number % 251}", 1024 + number % 3)
        outcomes = self.server.take(data, client, now, number)
        # None of them can have guessed a session.
        assert sum(len(each.data) for each in outcomes) <= 2 * len(data)
        self.strangers += bool(outcomes)
        assert self.strangers <= STRANGERS_RATE * (now + 2)
        assert len(self.server._strangers) <= MOST
        assert not self.server._heard
        try:
            message = parse_message(data)
        except MalformedMessageError:
            return
        self.parsed += 1
        _ = message.group, message.prefixes, message.requested, message.limit, message.heard
        _ = message.time_ns(CLIENT_TIME), message.time_ns(SERVER_TIME), read_request(message), read_report(message)
        self.client.take(message, Arrived(number, now, 9903, bool(number % 2), 64, len(data)))
        if self.client.is_over or number % 50 == 0:
            self.client = Conversation(ip_address("10.0.0.2"), Wish(), IDENTITY, now)
        if self.client.wanted is not None:
            assert self.client.wanted in self.client.wish.range
            self.client.joined(now)
        for outgoing in self.client.step(now, number):
            if outgoing.sequence is not None:
                self.client.note_sent(outgoing.sequence, number, now)


def run(count: int, seed: int) -> Machines:
    """Give the machines so many mutated messages."""
    random, machines = Random(seed), Machines()
    for number in range(count):
        machines.take(mutated(random, FORMS), number)
    return machines


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--count", type=int, default=1_000_000)
    parser.add_argument("--seed", type=int, default=time.time_ns())
    arguments = parser.parse_args()
    done = run(arguments.count, arguments.seed)
    print(f"seed {arguments.seed}: {arguments.count:,} messages, {done.parsed:,} parsed, {done.strangers:,} answered")
