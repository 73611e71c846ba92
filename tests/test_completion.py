"""The shells complete what the grammar has, and the names of scripts."""

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pexpect
import pytest

from orionagent.completion import completion
from orionagent.usage import LEVELS, commands
from tests.scripted_daemon import ScriptedDaemon, ok

REPOSITORY = Path(__file__).parents[1]
SCRIPTS = [{"name": "api-backend", "phase": "running"}, {"name": "worker", "phase": "stopped"}]
SCRIPT_WORDS = ["list", "show", "start", "stop", "restart", "add", "set", "remove"]


def needs(shell: str) -> pytest.MarkDecorator:
    return pytest.mark.skipif(shutil.which(shell) is None, reason=f"no {shell} here")


@pytest.fixture
def home(root: Path) -> Iterator[Path]:
    """Yield a root whose daemon knows two scripts, and that has `orion` in its bin."""
    (root / "bin").mkdir()
    launcher = root / "bin" / "orion"
    launcher.write_text(f'#!/bin/sh\nexec {sys.executable} -I -S {REPOSITORY}/bin/orion "$@"\n', encoding="utf-8")
    launcher.chmod(0o755)
    for shell in ("bash", "zsh", "fish"):
        (root / shell).write_text(completion(shell), encoding="utf-8")
    with ScriptedDaemon(root, {"script:list": ok(SCRIPTS)}):
        yield root


def environment(home: Path) -> dict[str, str]:
    return {"ORION_ROOT": str(home), "HOME": str(home), "PATH": f"{home}/bin:{os.environ['PATH']}", "TERM": "dumb"}


def bash_words(home: Path, *words: str) -> list[str]:
    program = (
        f'source {home}/bash; COMP_WORDS=("$@"); COMP_CWORD=$(($# - 1)); _orion; printf "%s\\n" "${{COMPREPLY[@]}}"'
    )
    done = subprocess.run(
        ["bash", "--norc", "-c", program, "bash", *words],
        env=environment(home), capture_output=True, text=True, timeout=30, check=True,
    )  # fmt: skip
    assert done.stderr == ""
    return done.stdout.split()


def fish_words(home: Path, *words: str) -> list[str]:
    program = f"source {home}/fish; complete -C '{' '.join(words)}'"
    done = subprocess.run(
        ["fish", "--no-config", "-c", program],
        env=environment(home),
        capture_output=True,
        text=True,
        timeout=30,
        check=True,
    )
    assert done.stderr == ""
    return [line.split("\t")[0] for line in done.stdout.splitlines()]


CASES: list[tuple[list[str], list[str]]] = [
    (["orion", "sta"], ["status"]),
    (["orion", "lo"], ["log", "logs"]),
    (["orion", "script", ""], SCRIPT_WORDS),
    (["orion", "script", "re"], ["restart", "remove"]),
    (["orion", "script", "start", "ap"], ["api-backend"]),
    (["orion", "script", "stop", "api-backend", "w"], ["worker"]),
    (["orion", "script", "start", "--a"], ["--all"]),
    (["orion", "script", "add", "w"], []),
    (["orion", "status", "--"], ["--watch", "--json"]),
    (["orion", "log", "wa"], ["warn"]),
    (["orion", "logs", "ap"], ["api-backend"]),
    (["orion", "logs", "--level", "e"], ["error"]),
    (["orion", "completion", "z"], ["zsh"]),
    (["orion", "demo", ""], []),
    (["orion", "setup", "--s"], ["--server", "--source"]),
    (["orion", "setup", "--na"], ["--name"]),
    (["orion", "setup", "--server", "--no"], ["--no-browser"]),
    (["orion", "setup", "--yes", "--source", "--no"], ["--no-auto-restart", "--no-capture"]),
    (["orion", "setup", "--server", "--na"], []),
    (["orion", "script", "add", "x", "y", "--user", "roo"], ["root"]),
]


@pytest.mark.parametrize(("words", "expected"), CASES)
def test_bash_completes(words: list[str], expected: list[str], home: Path) -> None:
    assert sorted(bash_words(home, *words)) == sorted(expected)


@needs("fish")
@pytest.mark.parametrize(("words", "expected"), CASES)
def test_fish_completes(words: list[str], expected: list[str], home: Path) -> None:
    assert sorted(fish_words(home, *words)) == sorted(expected)


def test_bash_completes_every_command_and_values_behind_an_equals_sign(home: Path) -> None:
    assert bash_words(home, "orion", "") == commands()
    assert bash_words(home, "orion", "logs", "--level", "=") == list(LEVELS)
    assert bash_words(home, "orion", "logs", "--level", "=", "wa") == ["warn"]
    (home / "folder").mkdir()
    assert bash_words(home, "orion", "script", "add", "x", "y", "--cwd", f"{home}/fol") == [f"{home}/folder"]


@needs("zsh")
@pytest.mark.parametrize(
    ("typed", "completed"),
    [
        ("orion sta", "orion status "),
        ("orion script rest", "orion script restart "),
        ("orion script start ap", "orion script start api-backend "),
        ("orion logs --fol", "orion logs --follow "),
        ("orion log --level wa", "orion log --level warn "),
        ("orion logs --level=wa", "orion logs --level=warn "),
        ("orion setup --server --n", "orion setup --server --no-browser "),
    ],
)
def test_zsh_completes(typed: str, completed: str, home: Path) -> None:
    shell = pexpect.spawn(
        "zsh", ["-f", "-i"], env=environment(home), encoding="utf-8", timeout=30, dimensions=(24, 200)
    )
    try:
        shell.sendline(f"PS1='ready> '; autoload -U compinit && compinit -D -u; source {home}/zsh; echo lo''aded")
        shell.expect("loaded\r\n")
        shell.send(f"{typed}\t")
        shell.expect(re.escape(completed))
    finally:
        shell.close(force=True)


def test_every_shell_takes_its_script_without_complaint(home: Path) -> None:
    for shell, check in (("bash", ["-n"]), ("zsh", ["-f", "-n"]), ("fish", ["--no-config", "-n"])):
        if shutil.which(shell) is not None:
            subprocess.run([shell, *check, str(home / shell)], check=True, timeout=30)
