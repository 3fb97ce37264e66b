"""What the whole suite shares. It runs in a private network; `private.py` enters it."""

import gc
import os
import signal
from collections.abc import Generator, Iterator
from pathlib import Path

import pytest
from hypothesis import settings

from multicast_expert.testing import Lab, LabError, lab_unavailable
from private import REFUSED, keep_off_the_network
from programs import chain, missing_program

try:
    import fcntl
except ImportError:  # on Windows, where no test is marked `alone`
    fcntl = None

# How long one example takes says nothing on a busy machine; pytest-timeout catches what hangs.
settings.register_profile("suite", deadline=None)
settings.load_profile("suite")

# Tests interrupt programs. A shell that starts the suite in the background lets it, and so them, ignore the interrupt.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)

WORKERS_PER_PROCESSOR = 4
"""Most tests wait most of their time: until something comes, or for as long as nothing may come."""


CHUNK = 8
"""Tests that a worker gets together, at most: `--maxschedchunk` in pyproject.toml."""
LONG = 8.0
"""Seconds of a test that should begin before most others."""


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_auto_num_workers() -> int | None:
    """How many workers `-n auto` means."""
    if "PYTEST_XDIST_AUTO_NUM_WORKERS" in os.environ:
        return None
    return WORKERS_PER_PROCESSOR * (os.cpu_count() or 1)


def is_worker(config: pytest.Config) -> bool:
    """Whether other workers may run tests at the same time."""
    return hasattr(config, "workerinput")


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Workers begin with what takes long, so that in the end none waits for another, and end with what runs alone."""
    if is_worker(config):
        places = spread([item for item in items if item.get_closest_marker("slow")])
        items.sort(key=lambda item: turn(item, places))


def turn(item: pytest.Item, places: dict[pytest.Item, float]) -> tuple[bool, float, float]:
    """What tests are sorted by."""
    patience = item.get_closest_marker("timeout")
    return item.get_closest_marker("alone") is not None, -patience.args[0] if patience else 0, places.get(item, 1)


def spread(items: list[pytest.Item]) -> dict[pytest.Item, float]:
    """Where among them each comes, 0 to 1: of each module some early and some late.

    The tests of one module mostly wait or mostly compute, and processors are idle where all workers wait.
    """
    modules: dict[Path, list[pytest.Item]] = {}
    for item in items:
        modules.setdefault(item.path, []).append(item)
    places = {}
    for module in modules.values():
        chunks = -(-len(module) // CHUNK)
        places.update({item: (number // CHUNK + 0.5) / chunks for number, item in enumerate(module)})
    return places


def pytest_collection_finish() -> None:
    """A test that collects garbage need not look at ten thousand collected tests each time."""
    gc.freeze()


def pytest_report_header() -> str | None:
    """Say why much is skipped."""
    return f"no private network, so no test may open a socket or start a program: {REFUSED}" if REFUSED else None


def skipped_without_its_means() -> Generator[None, object, object]:
    """A test is skipped if it starts a program that is not installed, or may not use the network."""
    with keep_off_the_network() as reasons:
        try:
            return (yield)
        except (Exception, pytest.fail.Exception) as error:
            if REFUSED and any(isinstance(link, LabError) for link in chain(error)):
                reasons.append(f"no private network: {REFUSED}")
            if reason := missing_program(error) or next(iter(reasons), None):
                pytest.skip(reason)
            raise


pytest_runtest_setup = pytest.hookimpl(wrapper=True)(skipped_without_its_means)
pytest_runtest_call = pytest.hookimpl(wrapper=True)(skipped_without_its_means)


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_runtest_protocol(item: pytest.Item) -> Generator[None, object, object]:
    """A test that is marked `alone` waits until no worker runs another, and others wait for its end.

    Out here, because pytest-timeout does not count the waiting then.
    """
    if not is_worker(item.config) or fcntl is None:
        return (yield)
    with Path(__file__).open() as room:
        fcntl.flock(room, fcntl.LOCK_EX if item.get_closest_marker("alone") else fcntl.LOCK_SH)
        return (yield)


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Name the tests that should be marked `slow`: they run late, and one worker may be left with several of them."""
    reports = [report for report in terminalreporter.stats.get("passed", ()) if report.when == "call"]
    for report in reports:
        if report.duration > LONG and "slow" not in report.keywords:
            terminalreporter.write_line(f"took {report.duration:.0f} s, and is not marked slow: {report.nodeid}")


@pytest.fixture(scope="module")
def documentation_network() -> Iterator[Lab]:
    """The network that the documents speak of. The tests run in its host, which has `lo` and `eth0`, and a router."""
    if reason := lab_unavailable():
        pytest.skip(f"no multicast lab: {reason}")
    with Lab() as lab:
        host, router = lab.host("host"), lab.host("router")
        ipv4, ipv6 = ("10.9.0.1/24", "10.9.0.254/24"), ("fd09::1/64", "fd09::ffff/64")
        lab.link(host, router, interface="eth0", ipv4=ipv4, ipv6=ipv6)
        host.ip("addr add fe80::1/64 dev eth0 nodad")
        host.ip("route add default via 10.9.0.254", "route add default via fd09::ffff")
        host.allow_ipv6_loopback()  # carries IPv4 multicast as it is
        with host.entered():
            yield lab
