"""Datagram: what it is to its users, the same with the extension and without."""

import copy
import gc
import inspect
import pickle
import subprocess
import sys
import weakref

import pytest

from multicast_expert import Datagram
from multicast_expert.core.datagram import PythonDatagram, arrived, cut

SENDER = ("10.0.0.1", 40_000)
WHOLE = Datagram(b"payload", SENDER, "239.1.2.3", 2, "eth0", 7, 1_700_000_000_000_000_001, True, "239.1.2.3", 0xB8)
NAMES = (
    "data", "sender", "group", "interface_index", "interface_name", "hop_limit", "timestamp_ns", "truncated",
    "destination", "traffic_class",
)  # fmt: skip


def test_its_parts() -> None:
    """Each has its name; what is not known is None, and a datagram is whole unless told otherwise."""
    assert [getattr(WHOLE, name) for name in NAMES] == [
        b"payload", SENDER, "239.1.2.3", 2, "eth0", 7, 1_700_000_000_000_000_001, True, "239.1.2.3", 0xB8
    ]  # fmt: skip
    bare = Datagram(b"", sender=SENDER)
    assert [getattr(bare, name) for name in NAMES] == [b"", SENDER, None, None, None, None, None, False, None, None]


def test_the_destination() -> None:
    """It is the group where no other is given; a datagram to a host has a destination and no group."""
    assert Datagram(b"", SENDER, "239.1.2.3").destination == "239.1.2.3"
    to_host = Datagram(b"", SENDER, destination="10.0.0.2")
    assert (to_host.group, to_host.destination) == (None, "10.0.0.2")
    assert pickle.loads(pickle.dumps(to_host)) == to_host


def test_patterns() -> None:
    """It can be matched by position and by name."""
    match WHOLE:
        case Datagram(data, sender, group="239.1.2.3"):
            assert (data, sender) == (b"payload", SENDER)
        case _:
            pytest.fail("it does not match")


def test_equality() -> None:
    """Equal parts make equal datagrams, which a set keeps once; one other part makes another."""
    parts = [getattr(WHOLE, name) for name in NAMES]
    assert Datagram(*parts) == WHOLE
    assert len({WHOLE, Datagram(*parts)}) == 1
    for place in range(len(parts)):
        assert Datagram(*parts[:place], "another", *parts[place + 1 :]) != WHOLE
    assert tuple(parts) != WHOLE


def test_its_text() -> None:
    """The text names every part, and makes the same datagram."""
    text = repr(WHOLE)
    assert text.startswith("Datagram(data=b'payload', sender=('10.0.0.1', 40000), group='239.1.2.3'")
    assert eval(text, {"Datagram": Datagram}) == WHOLE


def test_a_cut_datagram() -> None:
    """It has the beginning of the payload and says that the rest is lost; all else stays."""
    parts = {name: getattr(WHOLE, name) for name in NAMES}
    assert cut(Datagram(**{**parts, "truncated": False}), 3) == Datagram(**{**parts, "data": b"pay", "truncated": True})


def test_copies() -> None:
    """It can be pickled, for another process, and copied."""
    assert pickle.loads(pickle.dumps(WHOLE)) == copy.copy(WHOLE) == copy.deepcopy(WHOLE) == WHOLE


@pytest.mark.parametrize("name", [*NAMES, "other"])
def test_it_cannot_be_changed(name: str) -> None:
    """Many may hold the same one."""
    with pytest.raises(AttributeError):
        setattr(WHOLE, name, None)
    with pytest.raises(AttributeError):
        delattr(WHOLE, name)


def test_no_arguments() -> None:
    """Payload and sender are needed."""
    with pytest.raises(TypeError):
        Datagram()  # type: ignore[call-arg]
    with pytest.raises(TypeError):
        Datagram(b"")  # type: ignore[call-arg]


def test_a_class_of_the_users_own() -> None:
    """It may be extended, and has then attributes of its own; it is freed like any other object."""

    class Own(Datagram):
        note = ""

    own = Own(b"payload", SENDER, "239.1.2.3")
    own.note = "mine"
    assert (own.data, own.group, own.note) == (b"payload", "239.1.2.3", "mine")
    assert pickle.loads(pickle.dumps(WHOLE)) != own
    del own


def test_help() -> None:
    """What help() says of the class and of each part does not depend on the form."""
    assert inspect.getdoc(Datagram) == inspect.getdoc(PythonDatagram)
    given, twin = (inspect.signature(form).parameters for form in (Datagram, PythonDatagram))
    assert [(each.name, each.default) for each in given.values()] == [
        (each.name, each.default) for each in twin.values()
    ]
    for name in NAMES:
        described = inspect.getdoc(getattr(Datagram, name))
        assert described
        assert described == inspect.getdoc(getattr(PythonDatagram, name))


@pytest.mark.parametrize("kind", [Datagram, PythonDatagram])
@pytest.mark.parametrize("part", ["data", "sender", "group", "timestamp_ns", "truncated"])
def test_cycles(kind: type[Datagram], part: str) -> None:
    """A Datagram that is part of something it holds is garbage like anything else; so is one of a user's own class."""

    class Own(kind):  # type: ignore[valid-type, misc] # either class
        pass

    class Cell:
        held: object

    freed = []
    for made in (kind, Own):
        cell = Cell()
        cell.held = made(**{"data": b"", "sender": SENDER, part: cell})
        weakref.finalize(cell, freed.append, made)
    del cell
    gc.collect()
    assert freed == [kind, Own]


NESTED = """
import sys, threading
from multicast_expert.core.datagram import Datagram, PythonDatagram
kind = {"Datagram": Datagram, "PythonDatagram": PythonDatagram}[sys.argv[1]]
class Own(kind):
    pass
def nest():
    for kinds in ([kind], [kind, Own]):
        for parts in (["data"], ["truncated"], ["data", "timestamp_ns", "sender", "group"]):
            nested = b""
            for depth in range(150_000):
                leaf = kind(b"leaf", ("10.0.0.1", 1))
                known = {"data": leaf, "sender": ("10.0.0.1", 1), "timestamp_ns": leaf}
                nested = kinds[depth % len(kinds)](**known | {parts[depth % len(parts)]: nested})
            del nested, leaf, known
threading.stack_size(5 << 20)  # 35 bytes for each level: what calls itself crashes
thread = threading.Thread(target=nest)
thread.start()
thread.join()
"""


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["Datagram", "PythonDatagram"])
def test_datagrams_in_datagrams(kind: str) -> None:
    """However deep they are nested, and in whichever part, they are freed without using up the stack."""
    done = subprocess.run(
        [sys.executable, "-c", NESTED, kind], capture_output=True, text=True, check=False, timeout=100
    )
    assert done.returncode == 0


@pytest.mark.parametrize(
    "arguments",
    [
        (),
        (b"",),
        (b"", [], None, False),
        (b"", (), None, False),
        (b"", (1, 2, 3, 4), None, False),
        (b"", (SENDER, None, None, None, None, None), None, False),
        ([], (SENDER, None, None, None, None, None, None), None, False),
    ],
)
def test_wrong_parts(arguments: tuple[object, ...]) -> None:
    """The extension refuses what it could not take apart."""
    if Datagram is PythonDatagram:
        pytest.skip("the extension is not there")
    with pytest.raises((TypeError, ValueError)):
        arrived(*arguments)  # type: ignore[call-arg, arg-type]
