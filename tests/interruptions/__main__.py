"""The stress run: every face, interrupted in every way at once, with a ledger.

    python -m tests.interruptions --minutes N [--seed S] [--face F ...] [--generation G]

One process sends numbered datagrams. One process for each face opens receivers, one generation after the other, and
receives in threads or tasks while signals, cancelled tasks, forks, joins, leaves and closes from elsewhere interrupt it
and an interface comes and goes. For each group that was joined throughout an interval, the datagrams sent meanwhile are
those received and those that the kernel counts as dropped; none comes twice, and none of a group that was not joined.
A generation that hangs prints its stacks. Descriptors are counted after each generation, and memory at the end. Half of
the time the faces use the extension, and half of it they do not. It runs in a network of its own. The exit status is 0
when all went well, else 1.

The summary, and a failure, name the seed and the generation. To reproduce a failure, repeat these:
`--seed S --face F --generation G`. What a generation does, and in which order, is the same again; at which moments the
signals and the other threads meet it is not, so it may take some repetitions.
"""

import argparse
import contextlib
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE.parent))

from interruptions.programs.parts import ADD, REMOVE, ip  # noqa: E402 - found by the line above
from interruptions.running import FORKING, PATHS  # noqa: E402
from interruptions.stress.player import FLAPPING, STEADY  # noqa: E402
from multicast_expert.testing import enter_private_network  # noqa: E402

FACES = ("blocking", "asyncio", "uvloop", "trio")
RATE = 2000
"""Datagrams a second, to all groups together."""
FLAP_EVERY = 3.0
"""Seconds."""


def main() -> int:
    """Run it and return the exit status."""
    parser = argparse.ArgumentParser(prog="python -m tests.interruptions", description=__doc__.split("\n")[0])
    parser.add_argument("--minutes", type=float, default=1.0, help="how long to run")
    parser.add_argument("--seed", default=str(random.randrange(10**6)), help="what the plans are made of")
    parser.add_argument("--face", action="append", choices=FACES, help="run this face only; can be repeated")
    parser.add_argument("--generation", type=int, default=0, help="the first generation to play")
    arguments = parser.parse_args()
    enter_private_network()
    ip(*ADD)
    print(f"seed {arguments.seed}, {arguments.minutes:g} minutes", flush=True)
    begun = time.monotonic()
    failed: list[str] = []
    with tempfile.NamedTemporaryFile() as board:
        board.write(bytes(16 * len(STEADY + FLAPPING)))
        board.flush()
        routes = [f"{group}=lo" for group in STEADY] + [f"{group}=flap0" for group in FLAPPING]
        command = [sys.executable, "-S", "-E", str(HERE / "stress" / "sender.py"), board.name, str(RATE), *routes]
        with subprocess.Popen(command, stdin=subprocess.PIPE) as sender:
            for pure in (False, True):
                seconds = arguments.minutes * 30
                failed += play(arguments, board.name, seconds, pure)
            assert sender.stdin is not None
            sender.stdin.close()
    verdict = f"failed: {', '.join(failed)}" if failed else "all is accounted for"
    print(f"seed {arguments.seed}, {time.monotonic() - begun:.0f} s: {verdict}", flush=True)
    return 1 if failed else 0


def play(arguments: argparse.Namespace, board: str, seconds: float, pure: bool) -> list[str]:
    """Run all faces at the same time; return the names of those that failed."""
    players = {}
    for face in arguments.face or FACES:
        name = f"{face} {'pure' if pure else 'native'}"
        words = (face, board, f"{arguments.seed}/{pure}", str(seconds), str(arguments.generation), name)
        players[name] = subprocess.Popen(
            [sys.executable, "-W", FORKING, "-m", "interruptions.stress.player", *words],
            env={**os.environ, "PYTHONPATH": os.pathsep.join(PATHS), "MULTICAST_EXPERT_PURE": "1" if pure else ""},
            start_new_session=True,
        )
    end = time.monotonic() + seconds
    try:
        while any(player.poll() is None for player in players.values()):
            time.sleep(FLAP_EVERY if time.monotonic() < end else 0.1)
            if time.monotonic() < end:
                ip(*REMOVE)
                time.sleep(random.random() * 0.3)
                ip(*ADD)
    finally:
        for player in players.values():
            # With the children that a failed one has left behind.
            with contextlib.suppress(ProcessLookupError):
                os.killpg(player.pid, signal.SIGKILL)
            player.wait()
    return [f"{name} (status {player.returncode})" for name, player in players.items() if player.returncode]


if __name__ == "__main__":
    sys.exit(main())
