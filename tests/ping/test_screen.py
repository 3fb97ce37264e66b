"""What `mcast ping` shows of many hosts: the table while it runs, and a narrow one where there is little room."""

import re
from ipaddress import ip_address

import pytest

from cli.conftest import on_terminal
from multicast_expert.cli.render.ping import matrix_lines, summary_lines
from multicast_expert.ping.conversation import Conversation
from multicast_expert.ping.measuring import Result, result_of
from multicast_expert.ping.verdict import Pair
from multicast_expert.ping.wish import Wish
from multicast_expert.testing import Lab
from ping.network import plugged, pong

pytestmark = pytest.mark.slow

NAMES = [f"10.0.0.{number}" for number in range(1, 13)]


def test_a_narrow_table() -> None:
    """Where the cells do not fit, each pair is a character, and the heading has the numbers of the rows."""
    shares = {("10.0.0.2", "10.0.0.1"): 20, ("10.0.0.3", "10.0.0.1"): 13, ("10.0.0.12", "10.0.0.1"): 0}
    pairs = [
        Pair(sender, receiver, Result("pinging", sent=20, unicast=20, multicast=heard, first=int(heard > 0)))
        for (sender, receiver), heard in shares.items()
    ]
    pairs.append(Pair("10.0.0.4", "10.0.0.1", Result("over", sent=3)))
    lines = [each.plain for each in matrix_lines(NAMES, pairs, 40)]
    assert lines[:3] == ["            111", "   123456789012  hears", " 1 -*6n???????0  10.0.0.1"]
    assert len(lines) == 2 + len(NAMES) + 1
    assert max(map(len, lines[:-1])) <= 40
    assert next(matrix_lines(NAMES, pairs, 200)).plain.startswith("hears")


def test_what_did_not_reach_the_server_is_no_loss_of_answers() -> None:
    """Of ten queries the server got eight: eight answers are all, and six are three quarters."""
    conversation = Conversation(ip_address("10.0.0.2"), Wish(), bytes(8), 0.0)
    conversation.group, conversation.joined_at = ip_address("232.43.211.234"), 0.0
    conversation.state, conversation.sent, conversation.heard = "over", 10, 8
    for tally, count in ((conversation.unicast, 8), (conversation.multicast, 6)):
        for number in range(1, count + 1):
            tally.take(number, 1_000_000, float(number))
    lines = [each.plain for each in summary_lines("it", conversation, result_of(conversation))]
    assert lines[2] == "10 queries sent, 8 of them reached the server"
    assert lines[3].startswith("unicast:   8 answers, 0 % lost, ")
    assert lines[4].startswith("multicast: 6 answers, 25 % lost, ")


def test_the_table_is_live() -> None:
    """On a terminal it is drawn anew every second over the last one, and at the end it stands once with the verdict."""
    with Lab() as lab:
        hosts = plugged(lab, lab.switch("switch"), 3)
        for host in hosts[1:]:
            pong(host, "-4")
        screen = on_terminal(hosts[0], "ping", "10.0.0.2", "10.0.0.1", "10.0.0.3", "-c", "4", "-i", "1")
    # Each drawing but the first begins where the one before began: four rows up, and clears what is below.
    drawings = re.split(r"\r\x1b\[4A\x1b\[J", screen)
    assert len(drawings) >= 4
    assert all(drawing.count("hears") == 1 for drawing in drawings)
    assert all(re.search(r"s, multicast heard between \d of \d pairs$", each) for each in drawings[:-1])
    assert "verdict: " in drawings[-1]
