"""What these tests share: a lab for each file, and both classes in one shape."""

import functools
import inspect
from collections.abc import Iterator

import pytest

from both_ways.kinds import KINDS, Kind
from multicast_expert.testing import Lab, lab_unavailable


@pytest.hookimpl(tryfirst=True)
def pytest_pyfunc_call(pyfuncitem: pytest.Function) -> bool | None:
    """Run a test that is a coroutine on the kind of socket that it asks for."""
    if not inspect.iscoroutinefunction(pyfuncitem.obj):
        return None
    arguments = {name: pyfuncitem.funcargs[name] for name in inspect.signature(pyfuncitem.obj).parameters}
    pyfuncitem.funcargs["kind"].run(functools.partial(pyfuncitem.obj, **arguments))
    return True


@pytest.fixture(scope="module")
def lab() -> Iterator[Lab]:
    """An empty network laboratory, which the tests of one file share; skips where the machine allows none."""
    reason = lab_unavailable()
    if reason is not None:
        pytest.skip(f"no multicast lab: {reason}")
    with Lab() as opened:
        yield opened


@pytest.fixture(params=[4, 6], ids=["IPv4", "IPv6"])
def version(request: pytest.FixtureRequest) -> int:
    """The IP version."""
    number: int = request.param
    return number


@pytest.fixture(params=KINDS, ids=lambda kind: kind.name)
def kind(request: pytest.FixtureRequest) -> Kind:
    """McastSocket, and AsyncMcastSocket on each event loop."""
    chosen: Kind = request.param
    return chosen
