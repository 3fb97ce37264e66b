"""Each test runs pytest in a fresh process, with this plugin and no other that is installed."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

import multicast_expert
from programs import need

PLUGIN = "multicast_expert.testing.pytest_plugin"


def run_pytest(
    directory: Path, tests: str, *arguments: str, settings: str = "", plugin: str | None = PLUGIN
) -> subprocess.CompletedProcess[str]:
    """Run these tests in their own directory."""
    assert multicast_expert.__file__ is not None
    path = os.pathsep.join([str(Path(multicast_expert.__file__).parent.parent), *filter(None, sys.path)])
    (directory / "test_it.py").write_text(tests)
    (directory / "pytest.ini").write_text(f"[pytest]\n{settings}\n")
    environment = {name: value for name, value in os.environ.items() if not name.startswith("PYTEST_")}
    environment |= {"PYTHONPATH": path, "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1"}
    loaded = ["-p", plugin] if plugin else []
    return subprocess.run(
        [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", *loaded, *arguments],
        cwd=directory,
        env=environment,
        capture_output=True,
        text=True,
        timeout=100,
        check=False,
    )


NAMESPACE = "import os\nHERE = os.readlink('/proc/self/ns/net')\n"
OUTSIDE = "def test():\n    assert HERE == {!r}\n"
INSIDE = "def test():\n    assert HERE != {!r}\n"


def our_network() -> str:
    """The network that this test itself is in."""
    return str(Path("/proc/self/ns/net").readlink())


def test_by_itself_it_moves_nothing(tmp_path: Path) -> None:
    """A project that merely has the plugin installed runs its tests where it always did."""
    finished = run_pytest(tmp_path, NAMESPACE + OUTSIDE.format(our_network()))
    assert "1 passed" in finished.stdout, finished.stdout


def test_by_itself_it_loads_nothing(tmp_path: Path) -> None:
    """A project that does not use the plugin pays for its own file and the two packages around it, and no more."""
    tests = """
import sys
def test():
    ours = {name for name in sys.modules if name.startswith("multicast_expert")}
    assert ours == {"multicast_expert", "multicast_expert.testing", "multicast_expert.testing.pytest_plugin"}
"""
    finished = run_pytest(tmp_path, tests)
    assert "1 passed" in finished.stdout, finished.stdout


@pytest.mark.parametrize(
    ("arguments", "settings"),
    [(["--multicast-private-network"], ""), ([], "multicast_private_network = true")],
    ids=["option", "setting"],
)
def test_asked_for_it_moves_before_anything_is_imported(tmp_path: Path, arguments: list[str], settings: str) -> None:
    """By option or setting the process is in a private network when conftest.py and the test files are imported."""
    (tmp_path / "conftest.py").write_text(NAMESPACE + f"assert HERE != {our_network()!r}\n")
    finished = run_pytest(tmp_path, NAMESPACE + INSIDE.format(our_network()), *arguments, settings=settings)
    assert "1 passed" in finished.stdout, finished.stdout + finished.stderr


def test_a_conftest_can_load_it(tmp_path: Path) -> None:
    """Loaded by pytest_plugins in conftest.py it still moves the process before the tests are imported."""
    (tmp_path / "conftest.py").write_text(f"pytest_plugins = [{PLUGIN!r}]\n")
    tests = NAMESPACE + INSIDE.format(our_network())
    finished = run_pytest(tmp_path, tests, settings="multicast_private_network = true", plugin=None)
    assert "1 passed" in finished.stdout, finished.stdout + finished.stderr


def test_every_worker_has_its_own_network(tmp_path: Path) -> None:
    """Under pytest-xdist each worker is in a network of its own, and labs work in each."""
    need("ip")
    pytest.importorskip("xdist")
    tests = (
        NAMESPACE
        + """
import pathlib, time
def test(tmp_path_factory, worker_id, multicast_lab):
    multicast_lab.host("h").add_interface("eth0", ipv4="10.1.0.1/24")
    pathlib.Path(f"network-{worker_id}").write_text(HERE)
    deadline = time.monotonic() + 30
    while len(list(pathlib.Path(".").glob("network-*"))) < 2 and time.monotonic() < deadline:
        time.sleep(0.01)
test_again = test
"""
    )
    finished = run_pytest(tmp_path, tests, "-p", "xdist", "-n", "2", settings="multicast_private_network = true")
    assert "2 passed" in finished.stdout, finished.stdout + finished.stderr
    networks = {path.read_text() for path in tmp_path.glob("network-gw*")}
    assert len(networks | {our_network()}) == 3


def test_the_fixtures(tmp_path: Path) -> None:
    """multicast_lab is an open, empty lab; multicast_loopback moves the process; a lab is closed after its test."""
    need("ip")
    tests = (
        NAMESPACE
        + """
labs = []
def test_lab(multicast_lab):
    labs.append(multicast_lab)
    assert multicast_lab.nodes == {}
    labs.append(multicast_lab.host("h"))
def test_closed():
    try:
        labs[1].run(print)
    except RuntimeError:
        return
    raise AssertionError("still open")
def test_loopback(multicast_loopback):
    import socket
    assert socket.if_nameindex() == [(1, multicast_loopback)]
    assert os.readlink('/proc/self/ns/net') != HERE
"""
    )
    finished = run_pytest(tmp_path, tests)
    assert "3 passed" in finished.stdout, finished.stdout + finished.stderr


NO_NAMESPACES = """
import multicast_expert.testing.private_network as network
network.namespaces_exist = lambda: False
"""


def test_where_there_is_no_lab_the_fixtures_skip(tmp_path: Path) -> None:
    """On a machine without namespaces tests are skipped, with the reason."""
    (tmp_path / "conftest.py").write_text(NO_NAMESPACES)
    tests = "def test_lab(multicast_lab): pass\ndef test_loopback(multicast_loopback): pass\n"
    finished = run_pytest(tmp_path, tests, "-rs")
    assert "2 skipped" in finished.stdout
    assert "no multicast lab: network namespaces exist on Linux only" in finished.stdout
    assert "no private network: A private network can be entered on Linux only" in finished.stdout


@pytest.mark.parametrize(
    ("arguments", "settings"),
    [(["--multicast-require"], ""), ([], "multicast_require = true")],
    ids=["option", "setting"],
)
def test_where_they_are_required_the_fixtures_fail(tmp_path: Path, arguments: list[str], settings: str) -> None:
    """A CI that requires them is not green without them; tests that use neither fixture pass, with the same reasons."""
    (tmp_path / "conftest.py").write_text(NO_NAMESPACES)
    tests = "def test_lab(multicast_lab): pass\ndef test_loopback(multicast_loopback): pass\ndef test(): pass\n"
    finished = run_pytest(tmp_path, tests, *arguments, settings=settings)
    assert finished.returncode == pytest.ExitCode.TESTS_FAILED
    assert "1 passed, 2 errors" in finished.stdout, finished.stdout
    assert "no multicast lab: network namespaces exist on Linux only (multicast_require is set)" in finished.stdout
    assert "no private network: A private network can be entered on Linux only (multicast_req" in finished.stdout


def test_what_is_required_and_there_is_used(tmp_path: Path) -> None:
    """On a machine that has a lab the requirement changes nothing."""
    need("ip")
    tests = "def test_lab(multicast_lab): pass\ndef test_loopback(multicast_loopback): pass\n"
    finished = run_pytest(tmp_path, tests, "--multicast-require")
    assert "2 passed" in finished.stdout, finished.stdout


def test_asked_for_a_private_network_it_never_goes_on_without(tmp_path: Path) -> None:
    """Where the network cannot be entered, pytest ends with the reason instead of running tests in the machine's."""
    (tmp_path / "broken.py").write_text(NO_NAMESPACES)
    finished = run_pytest(tmp_path, "def test(): pass\n", "-p", "broken", settings="multicast_private_network = true")
    assert finished.returncode == pytest.ExitCode.USAGE_ERROR
    assert "multicast_private_network is asked for, but: A private network" in finished.stderr
    assert "passed" not in finished.stdout


RECORDING = """
from multicast_expert import Datagram
from multicast_expert.recording import RecordedReceiver, write_recording

def test_recording(multicast_recording):
    feed = [(Datagram(bytes([number]), ("10.0.0.7", 4000), f"239.1.2.{number}"), 5000) for number in range(3)]
    assert write_recording(__file__.replace("test_it.py", "feed.pcapng"), feed) == 3
    assert [each.data for each in multicast_recording("feed.pcapng")] == [b"\\0", b"\\1", b"\\2"]
    recording = multicast_recording("feed.pcapng", "239.1.2.1")
    assert [each.data for each in recording] == [b"\\1"]
    with RecordedReceiver(recording.path, ["239.1.2.2"], 5000) as receiver:
        assert receiver.receive().group == "239.1.2.2"

receivers = []

def test_receiver(multicast_recording):
    receivers.append(multicast_recording.receiver("feed.pcapng", ["239.1.2.2", "239.1.2.1"], 5000))
    assert [each.data for each in receivers[0]] == [b"\\1", b"\\2"]

def test_closed():
    assert not receivers[0].is_opened
"""


def test_a_recording_is_opened_beside_the_test(tmp_path: Path) -> None:
    """It is found whatever the current folder is, and closed: a file that stays open is a warning, and so an error."""
    finished = run_pytest(tmp_path, RECORDING, "-W", "error")
    assert "3 passed" in finished.stdout, finished.stdout
