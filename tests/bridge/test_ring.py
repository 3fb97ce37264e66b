"""A ring of three sites with two bridges on one network, while bridges die, restart and lose their connection."""

import pytest

from bridge.soak import run
from programs import need

pytestmark = [pytest.mark.usefixtures("lab"), pytest.mark.slow, pytest.mark.timeout(180)]


def test_in_a_ring_nothing_is_doubled() -> None:
    """100,000 datagrams without an incident: each once and in order at both other sites."""
    done = run(100_000, 20_000, 0)
    done.check()
    assert [each.missing for each in done.hearers] == [0, 0]


def test_nor_while_bridges_die_and_links_break() -> None:
    """The speaker is killed, a link cut, a site restarted; `python -m bridge.soak` lets many more through."""
    need("nft")  # before threads run that a skipped test would leave behind
    done = run(60_000, 3_000, 3)
    done.check()
    # A kill costs the pair its second of silence, the third site its cut and its restart.
    assert 0 < done.hearers[0].missing < 3 * 3_000
    assert 0 < done.hearers[1].missing < 15 * 3_000
    assert done.hearers[0].longest_gap < 2.0
