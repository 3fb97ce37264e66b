"""Whose network this is: the engine's, the host's, or one that a program inside of the container made."""

from pathlib import Path

import pytest

from multicast_expert.doctor.host.linux_container import container, has_own_network


def process(proc: Path, name: str, parent: int, network: int, root: Path) -> None:
    """An entry of /proc."""
    (proc / name / "ns").mkdir(parents=True)
    (proc / name / "ns/net").symlink_to(f"net:[{network}]")
    (proc / name / "root").symlink_to(root)
    (proc / name / "status").write_text(f"Name:\tsh\nPPid:\t{parent}\n", encoding="utf-8")


def tree(root: Path, networks: list[int], roots: list[str]) -> Path:
    """A /proc with this thread, its process, and two ancestors."""
    proc = root / "proc"
    for name, parent, network, place in zip(
        ("thread-self", "self", "7", "1"), (7, 7, 1, 0), networks, roots, strict=True
    ):
        (root / place).mkdir(exist_ok=True)
        process(proc, name, parent, network, root / place)
    return proc


@pytest.mark.parametrize(
    ("networks", "roots", "own"),
    [
        ([1, 1, 1, 1], ["a", "a", "a", "a"], False),
        # `unshare -n` in a shell, and a thread in a network of its own.
        ([2, 2, 1, 1], ["a", "a", "a", "a"], True),
        ([2, 1, 1, 1], ["a", "a", "a", "a"], True),
        # The container sees the processes of the host, and is a child of its engine.
        ([2, 2, 2, 1], ["a", "a", "a", "b"], False),
    ],
)
def test_a_network_that_was_made_inside(tmp_path: Path, networks: list[int], roots: list[str], own: bool) -> None:
    """An ancestor in the same files and another network tells it."""
    assert has_own_network(tree(tmp_path, networks, roots)) is own
    (tmp_path / ".dockerenv").touch()
    assert container(tmp_path, {}) == (None if own else "docker")


def test_what_cannot_be_read_is_no_network_of_its_own(tmp_path: Path) -> None:
    """Without /proc, and with ancestors of another user, the engine's network is assumed."""
    assert not has_own_network(tmp_path)
    proc = tree(tmp_path, [2, 2, 2, 1], ["a"] * 4)
    (proc / "1/ns/net").unlink()
    assert not has_own_network(proc)


def test_the_marks_of_engines(tmp_path: Path) -> None:
    """Files and variables name the engine; without any there is none."""
    assert container(tmp_path, {}) is None
    assert container(tmp_path, {"container": "lxc"}) == "lxc"
    assert container(tmp_path, {"KUBERNETES_SERVICE_HOST": "10.0.0.1"}) == "kubernetes"
    (tmp_path / "run").mkdir()
    (tmp_path / "run/.containerenv").touch()
    assert container(tmp_path, {}) == "podman"
