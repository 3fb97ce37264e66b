"""The pytest plugin: a lab, a private loopback and recordings as fixtures.

Every run of pytest imports this file, so it loads the laboratory only when a fixture or the option asks for it.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, NoReturn

import pytest

from multicast_expert import testing

if TYPE_CHECKING:
    from multicast_expert.testing.recording_opener import RecordingOpener

PRIVATE_NETWORK = "multicast_private_network"
REQUIRE = "multicast_require"
OPTIONS = {
    PRIVATE_NETWORK: (
        "run the tests in a private network: nothing that they send or join reaches the machine's network (Linux)"
    ),
    REQUIRE: "fail a test for which this machine has no multicast lab or private network, instead of skipping it",
}
"""Each option and what it means."""


def pytest_addoption(parser: pytest.Parser) -> None:
    """Declare the options, once for the command line and once for the configuration file."""
    group = parser.getgroup("multicast")
    for option, meaning in OPTIONS.items():
        parser.addini(option, meaning, type="bool", default=False)
        group.addoption(f"--{option.replace('_', '-')}", dest=option, action="store_true", default=False, help=meaning)


@pytest.hookimpl(tryfirst=True)
def pytest_load_initial_conftests(early_config: pytest.Config) -> None:
    """Move the process before any conftest.py can start a thread or open a socket."""
    _enter_if_asked(early_config, bool(early_config.known_args_namespace.__dict__.get(PRIVATE_NETWORK)))


@pytest.hookimpl(tryfirst=True)
def pytest_configure(config: pytest.Config) -> None:
    """Move the process also where a conftest.py has loaded this plugin."""
    _enter_if_asked(config, bool(config.getoption(PRIVATE_NETWORK)))


def _enter_if_asked(config: pytest.Config, asked: bool) -> None:
    if not (asked or config.getini(PRIVATE_NETWORK)):
        return
    try:
        testing.enter_private_network()
    except testing.LabError as error:
        # Without it the tests would reach the very network that the option keeps them from.
        raise pytest.UsageError(f"{PRIVATE_NETWORK} is asked for, but: {error}") from error


def _do_without(config: pytest.Config, what: str, reason: object) -> NoReturn:
    """Skip the test, or fail it if the run requires what this machine lacks."""
    message = f"no {what}: {reason}"
    if config.getoption(REQUIRE) or config.getini(REQUIRE):
        pytest.fail(f"{message} ({REQUIRE} is set)", pytrace=False)
    pytest.skip(message)


def _enter(config: pytest.Config) -> None:
    try:
        testing.enter_private_network()
    except testing.LabError as error:
        _do_without(config, "private network", error)


@pytest.fixture
def multicast_lab(pytestconfig: pytest.Config) -> Iterator[testing.Lab]:
    """Return an empty network laboratory; where the machine allows none, skip, or fail if `multicast_require` is set.

    An ordinary user's process moves into a private network for it, and stays there for the tests that follow.
    """
    from multicast_expert.testing.private_network import may_make_namespaces  # noqa: PLC0415 - as the module says

    reason = testing.lab_unavailable()
    if reason is not None:
        _do_without(pytestconfig, "multicast lab", reason)
    if not may_make_namespaces():
        _enter(pytestconfig)
    with testing.Lab() as lab:
        yield lab


@pytest.fixture
def multicast_loopback(pytestconfig: pytest.Config) -> str:
    """Return the name of a loopback interface that carries IPv4 and IPv6 multicast, in a private network.

    The process moves into that network for it, and stays there for the tests that follow; where that is impossible, the
    fixture skips, or fails if `multicast_require` is set.
    """
    _enter(pytestconfig)
    return "lo"


@pytest.fixture
def multicast_recording(request: pytest.FixtureRequest) -> Iterator[RecordingOpener]:
    """Return what opens recordings, which are closed after the test.

    `multicast_recording("feed.pcapng")` is a Recording, `multicast_recording.receiver("feed.pcapng", [group], port)` a
    RecordedReceiver. Paths count from the folder of the test file. No network is needed, so it works everywhere.
    """
    from multicast_expert.testing.recording_opener import RecordingOpener  # noqa: PLC0415 - as the module says

    with RecordingOpener(request.path.parent) as opener:
        yield opener
