"""The pytest plugin: a lab, a private loopback and recordings as fixtures.

Every run of pytest imports this file, so it loads the laboratory only when a fixture or the option asks for it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack
from typing import TYPE_CHECKING

import pytest

from multicast_expert import testing

if TYPE_CHECKING:
    from multicast_expert.recording import Recording

OPTION = "multicast_private_network"


def pytest_addoption(parser: pytest.Parser) -> None:
    """Declare the option, once for the command line and once for the configuration file."""
    meaning = "run the tests in a private network: nothing that they send or join reaches the machine's network (Linux)"
    parser.addini(OPTION, meaning, type="bool", default=False)
    parser.getgroup("multicast").addoption(
        "--multicast-private-network", dest=OPTION, action="store_true", default=False, help=meaning
    )


@pytest.hookimpl(tryfirst=True)
def pytest_load_initial_conftests(early_config: pytest.Config) -> None:
    """Move the process before any conftest.py can start a thread or open a socket."""
    _enter_if_asked(early_config, bool(early_config.known_args_namespace.__dict__.get(OPTION)))


@pytest.hookimpl(tryfirst=True)
def pytest_configure(config: pytest.Config) -> None:
    """Move the process also where a conftest.py has loaded this plugin."""
    _enter_if_asked(config, bool(config.getoption(OPTION)))


def _enter_if_asked(config: pytest.Config, asked: bool) -> None:
    if not (asked or config.getini(OPTION)):
        return
    try:
        testing.enter_private_network()
    except testing.LabError as error:
        # Without it the tests would reach the very network that the option keeps them from.
        raise pytest.UsageError(f"{OPTION} is asked for, but: {error}") from error


def _enter_or_skip() -> None:
    try:
        testing.enter_private_network()
    except testing.LabError as error:
        pytest.skip(f"no private network: {error}")


@pytest.fixture
def multicast_lab() -> Iterator[testing.Lab]:
    """Return an empty network laboratory; skip where the machine allows none.

    An ordinary user's process moves into a private network for it, and stays there for the tests that follow.
    """
    from multicast_expert.testing.private_network import may_make_namespaces  # noqa: PLC0415 - as the module says

    reason = testing.lab_unavailable()
    if reason is not None:
        pytest.skip(f"no multicast lab: {reason}")
    if not may_make_namespaces():
        _enter_or_skip()
    with testing.Lab() as lab:
        yield lab


@pytest.fixture
def multicast_loopback() -> str:
    """Return the name of a loopback interface that carries IPv4 and IPv6 multicast, in a private network.

    The process moves into that network for it, and stays there for the tests that follow; the fixture skips where that
    is impossible.
    """
    _enter_or_skip()
    return "lo"


@pytest.fixture
def multicast_recording(request: pytest.FixtureRequest) -> Iterator[Callable[..., Recording]]:
    """Return a function that opens a recording, which is closed after the test: `multicast_recording("feed.pcapng")`.

    The path counts from the folder of the test file; a second argument chooses endpoints, as for Recording. No network
    is needed, so it works everywhere.
    """
    from multicast_expert.recording import Recording  # noqa: PLC0415 - as the module says

    with ExitStack() as opened:

        def multicast_recording(path: str, endpoints: Iterable[str] | str | None = None) -> Recording:
            return opened.enter_context(Recording(request.path.parent / path, endpoints))

        yield multicast_recording
