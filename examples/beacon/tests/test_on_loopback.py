"""What most programs need: the loopback interface, carrying multicast, in a network that nobody else is in."""

import pytest

from beacon import Listener, announce


def test_an_announcement_is_heard(multicast_loopback: str) -> None:
    """Who is listening hears a name."""
    with Listener(multicast_loopback) as listener:
        announce("printer", multicast_loopback)
        assert listener.names(seconds=5, enough=1) == {"printer": "127.0.0.1"}


def test_everybody_is_heard(multicast_loopback: str) -> None:
    """Two listeners hear the same two names."""
    with Listener(multicast_loopback) as first, Listener(multicast_loopback) as second:
        for name in ("printer", "scanner"):
            announce(name, multicast_loopback)
        for listener in (first, second):
            assert set(listener.names(seconds=5, enough=2)) == {"printer", "scanner"}


def test_silence_ends(multicast_loopback: str) -> None:
    """Where nobody announces anything, nothing is found, and in time."""
    with Listener(multicast_loopback) as listener:
        assert listener.names(seconds=0.1) == {}


@pytest.mark.parametrize("name", ["", "x" * 201])
def test_a_bad_name_is_refused(name: str, multicast_loopback: str) -> None:
    """A name that would not fit is an error before anything is sent."""
    with pytest.raises(ValueError, match="bytes"):
        announce(name, multicast_loopback)
