"""Help, manual pages and completion: they come from the same declarations, fit, and work in real shells."""

import os
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from cli.conftest import PATIENCE, Run
from multicast_expert.cli import COMMANDS, load
from multicast_expert.cli.completion import candidates
from multicast_expert.cli.manual import pages
from multicast_expert.cli.parameters import UsageError
from multicast_expert.cli.parsing import HelpRequest, parse
from multicast_expert.cli.render.help import command_lines, overview_lines
from multicast_expert.testing import Host
from programs import MCAST

MANUAL = Path(__file__).parents[2] / "docs" / "man"
every_command = pytest.mark.parametrize("name", COMMANDS)


# Help


@every_command
@pytest.mark.parametrize("width", [40, 80, 200])
def test_help_fits(name: str, width: int) -> None:
    """No line of the help is longer than the terminal, or than 100 columns, and no option is missing."""
    lines = [line.plain for line in command_lines(load(name), COMMANDS[name], width)]
    assert [line for line in lines if len(line) > min(width, 100)] == []
    for slot in load(name).slots:
        assert all(re.search(rf"{each}\b", "\n".join(lines)) for each in slot.parameter.names)


@pytest.mark.parametrize("width", [40, 80])
def test_the_overview_fits(width: int) -> None:
    """It names every command."""
    lines = [line.plain for line in overview_lines(COMMANDS, width)]
    assert [line for line in lines if len(line) > width] == []
    assert all(re.search(rf"^  {name}\b", "\n".join(lines), re.MULTILINE) for name in COMMANDS)


@every_command
def test_help_speaks_of_no_types(name: str) -> None:
    """It names values by their meaning, not by the types of Python."""
    text = "\n".join(line.plain for line in command_lines(load(name), COMMANDS[name], 80))
    assert re.findall(r"\b(?:INTEGER|FLOAT|TEXT_|STRING|None|int|str|bool|False|True|Optional)\b|\[default", text) == []


@every_command
def test_every_example_is_accepted(name: str) -> None:
    """The command lines that the help shows are understood: words behind a pipe or a redirection are the shell's."""
    for example, _ in load(name).examples:
        words = shlex.split(re.split(r"\s[|>]\s", re.sub(r'^eval "\$\((.*)\)"$', r"\1", example))[0])
        assert words[:2] == ["mcast", name]
        assert parse(load(name).slots, words[2:]).keys() <= {slot.name for slot in load(name).slots}


# Parsing


@pytest.mark.parametrize(
    ("words", "values"),
    [
        (["239.1.2.3:5000"], {"texts": ["239.1.2.3:5000"]}),
        (["-c3", "-W", "1.5", "g", "h"], {"texts": ["g", "h"], "number": 3, "duration": 1.5}),
        (["g", "--count=2", "--json"], {"texts": ["g"], "number": 2, "as_json": True}),
        (["-i", "a", "g", "-ib", "--interface=c"], {"texts": ["g"], "ifaces": ["a", "b", "c"]}),
        (["--", "-c", "g"], {"texts": ["-c", "g"]}),
        (["-c", "2", "-c", "4", "g"], {"texts": ["g"], "number": 4}),
    ],
)
def test_how_words_are_read(words: list[str], values: dict[str, object]) -> None:
    """Options stand anywhere, take values joined or apart, and the last one counts unless it may be repeated."""
    assert parse(load("recv").slots, words) == values


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ([], "Missing argument 'ENDPOINT'."),
        (["g", "-c"], "Argument -c/--count: expected one argument."),
        (["g", "--json=yes"], "Argument --json: ignored explicit argument 'yes'."),
        (["g", "--jsn"], "No such option: --jsn Did you mean --json?"),
        (["g", "-x"], "No such option: -x"),
        (["g", "-c", "0"], "Invalid value for '-c' / '--count': '0' is not a whole number from 1 on."),
        (["g", "-c", "²"], "Invalid value for '-c' / '--count': '²' is not a whole number from 1 on."),
        (["g", "-W", "-1"], "Invalid value for '-W' / '--for' / '--seconds': '-1' is not a number of seconds."),
        (["g", "-W", "nan"], "Invalid value for '-W' / '--for' / '--seconds': 'nan' is not a number of seconds."),
    ],
)
def test_words_that_make_no_sense(words: list[str], message: str) -> None:
    """The error names the option and what it takes."""
    with pytest.raises(UsageError) as refused:
        parse(load("recv").slots, words)
    assert str(refused.value).startswith(message)


def test_more_words_than_arguments() -> None:
    """A command that takes one endpoint refuses a second one."""
    with pytest.raises(UsageError, match="Unexpected argument: two"):
        parse(load("plan").slots, ["239.1.2.3:5000", "two"])


@pytest.mark.parametrize("words", [["-h"], ["g", "--help"], ["--json", "-h", "--nonsense"]])
def test_help_is_asked_for(words: list[str]) -> None:
    """-h and --help count wherever they stand."""
    with pytest.raises(HelpRequest):
        parse(load("recv").slots, words)


# Manual pages


def test_the_manual_pages_are_current() -> None:
    """Written anew by `python -m multicast_expert.cli.manual docs/man`, they are what the folder holds."""
    assert {path.name: path.read_text(encoding="ascii") for path in MANUAL.iterdir()} == pages()


@pytest.mark.parametrize(("shell", "file"), [("bash", "mcast"), ("zsh", "_mcast"), ("fish", "mcast.fish")])
def test_the_completions_are_current(mcast: Run, shell: str, file: str) -> None:
    """The files that a wheel installs are what the command prints."""
    assert mcast("completion", shell).stdout == (MANUAL.parent / "completion" / file).read_text()


@pytest.mark.skipif(shutil.which("mandoc") is None, reason="the program `mandoc` is not installed")
def test_the_manual_pages_are_well_formed() -> None:
    """mandoc finds nothing to say about them."""
    files = sorted(MANUAL.iterdir())
    done = subprocess.run(["mandoc", "-Tlint", *files], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (0, "")


# Completion


def words_for(*words: str) -> set[str]:
    """What may stand in the place of the last word."""
    return {word for word, _ in candidates(words)}


def test_commands_and_options_are_completed() -> None:
    """Commands at first, then the options of the one that was typed, and the values of an option that has some."""
    assert words_for("re") == {"recv", "record", "replay"}
    assert words_for("") >= set(COMMANDS)
    assert words_for("recv", "--r") == {"--receive-buffer", "--raw"}
    assert words_for("send", "239.1.2.3:5000", "--no") == {"--no-loopback"}
    assert words_for("plan", "--os", "ma") == {"macos"}
    assert words_for("plan", "--os=ma") == {"--os=macos"}
    assert words_for("send", "--dscp", "af4") == {"af41", "af42", "af43"}
    assert words_for("completion", "") == {"bash", "zsh", "fish"}
    assert "reverse-path-filter" in words_for("doctor", "--explain", "r")
    assert words_for("doctor", "--save", "x") == {"\x01files"}
    assert words_for("send", "239.1.2.3:5000", "x") == set()
    assert words_for("nonsense", "") == set()


SHELLS = {
    "bash": """source <(mcast completion bash)
COMP_LINE="$LINE"; COMP_POINT=${#LINE}; COMP_TYPE=9
COMP_WORDS=($LINE); COMP_CWORD=$((${#COMP_WORDS[@]} - 1))
_mcast; printf '%s\\n' "${COMPREPLY[@]}"
""",
    "zsh": """autoload -U compinit; compinit -u -d "$HOME/dump"
source <(mcast completion zsh)
compadd() { local -a shown; shown=("${(@P)@[-1]}"); print -rl -- $shown; }
words=(${(z)LINE}); CURRENT=${#words}; _mcast
""",
    "fish": """mcast completion fish | source
complete -C "$LINE" | cut -f 1
""",
}


@pytest.fixture
def completes(host: Host, tmp_path: Path) -> "object":
    """Asks a shell on the host for what may stand at the end of a line."""
    program = tmp_path / "mcast"
    program.write_text(f'#!/bin/sh\nexec {" ".join(MCAST)} "$@"\n')
    program.chmod(0o755)
    path = os.pathsep.join([str(tmp_path), str(Path(sys.executable).parent), os.environ.get("PATH", "")])

    def ask(shell: str, line: str) -> set[str]:
        arguments = [shell, *{"bash": ["--norc"], "zsh": ["-f"], "fish": ["--no-config"]}[shell], "-c"]
        environment = os.environ | {"PATH": path, "LINE": line, "HOME": str(tmp_path), "XDG_CONFIG_HOME": str(tmp_path)}
        done = host.run(
            subprocess.run,
            [*arguments, SHELLS[shell]],
            env=environment,
            capture_output=True,
            text=True,
            timeout=PATIENCE,
        )
        assert done.stderr == ""
        return set(done.stdout.split())

    return ask


@pytest.mark.slow
@pytest.mark.parametrize("shell", SHELLS)
def test_in_a_real_shell(host: Host, mcast: Run, completes: "object", shell: str) -> None:
    """The shell offers commands, options, the interfaces and the joined groups of this host."""
    if shutil.which(shell) is None:
        pytest.skip(f"the shell {shell} is not installed")
    assert callable(completes)
    assert mcast("completion", shell).returncode == 0
    host.join_and_never_read("239.9.8.7", 5432, interface="eth0")
    broken = shell == "bash"  # it replaces what is behind the last colon or percent sign only
    assert completes(shell, "mcast int") == {"interfaces"}
    assert completes(shell, "mcast recv --ra") == {"--raw"}
    assert {"lo", "eth0"} <= completes(shell, "mcast recv -i e") | completes(shell, "mcast recv -i l")
    assert completes(shell, "mcast recv 239.9") == {"239.9.8.7:5432"}
    assert completes(shell, "mcast recv 239.9.8.7:5") == {"5432" if broken else "239.9.8.7:5432"}
    assert completes(shell, "mcast recv 239.9.8.7:5432%e") >= {"5432%eth0" if broken else "239.9.8.7:5432%eth0"}
