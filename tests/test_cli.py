"""Every command asks the daemon the right question, says what came of it, and ends with the right code."""

import json
import os
import pty
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.scripted_daemon import ScriptedDaemon, ok, refusal

REPOSITORY = Path(__file__).parents[1]
ORION = [sys.executable, "-I", "-S", str(REPOSITORY / "bin" / "orion")]
ROW = {"name": "api", "phase": "running", "pid": 42, "restarts": 0}
ENTRIES = [
    {"timestamp": "T1", "level": "info", "source": "api", "message": "up"},
    {"timestamp": "T2", "level": "error", "source": "api", "message": "\x1b[2Jdown"},
    {"timestamp": "T3", "level": "warn", "source": "api", "message": "odd"},
]


def environment(root: Path, **more: str) -> dict[str, str]:
    return {"ORION_ROOT": str(root), "PATH": os.environ["PATH"], **more}


def orion(root: Path, *arguments: str, cwd: str = "/") -> tuple[int, str, str]:
    done = subprocess.run(
        [*ORION, *arguments],
        env=environment(root),
        cwd=cwd,
        capture_output=True,
        text=True,
        encoding="utf-8",
        timeout=30,
        check=False,
    )
    return done.returncode, done.stdout, done.stderr


@pytest.mark.parametrize(
    ("arguments", "question"),
    [
        (["script", "show", "api"], {"cmd": "script:show", "name": "api"}),
        (["script", "start", "api"], {"cmd": "script:start", "name": "api"}),
        (["script", "stop", "api"], {"cmd": "script:stop", "name": "api"}),
        (["script", "restart", "api"], {"cmd": "script:restart", "name": "api"}),
        (["script", "remove", "api"], {"cmd": "script:remove", "name": "api"}),
        (["reload"], {"cmd": "reload"}),
        (["buffer", "flush"], {"cmd": "buffer:flush"}),
        (
            ["script", "add", "api", "node x.js", "--cwd", "/opt/myapp", "--no-auto-restart"],
            {"cmd": "script:add", "name": "api", "command": "node x.js", "cwd": "/opt/myapp", "autoRestart": False},
        ),
        (
            ["script", "add", "api", "x", "--cwd=sub/../a", "--no-capture", "--user=me", "--env=A=b=c", "--env=D="],
            {
                "cmd": "script:add",
                "name": "api",
                "command": "x",
                "cwd": "/usr/a",
                "captureOutput": False,
                "user": "me",
                "env": {"A": "b=c", "D": ""},
            },
        ),
        (
            ["script", "add", "api", "x", "--set=maxRestarts=3", "--set=after=db,cache", "--set", "umask=022"],
            {
                "cmd": "script:add",
                "name": "api",
                "command": "x",
                "cwd": "/usr",
                "maxRestarts": 3,
                "after": ["db", "cache"],
                "umask": "022",
            },
        ),
        (
            ["script", "set", "api", "autoRestart=false", "cwd=here", "user=", 'limits={"nofile": 9}', "command=true"],
            {
                "cmd": "script:update",
                "name": "api",
                "fields": {
                    "autoRestart": False,
                    "cwd": "/usr/here",
                    "user": None,
                    "limits": {"nofile": 9},
                    "command": "true",
                },
            },
        ),
    ],
)
def test_a_command_becomes_one_question(arguments: list[str], question: dict[str, Any], root: Path) -> None:
    reply = ok(ROW | {"sent": 0, "remaining": 0})
    with ScriptedDaemon(root, {question["cmd"]: reply}) as daemon:
        code, _, errors = orion(root, *arguments, cwd="/usr")
        assert (code, errors) == (0, "")
        assert daemon.take_requests() == [question]


def test_several_scripts_are_all_tried_and_the_first_failure_is_the_exit_code(root: Path) -> None:
    with ScriptedDaemon(root, {"script:start": refusal("cannot start: no such script", "not-found")}) as daemon:
        code, output, errors = orion(root, "script", "start", "a", "b", "a")
        assert sorted(asked["name"] for asked in daemon.take_requests()) == ["a", "b"]
    assert (code, output) == (1, "")
    assert errors == "orion: cannot start: no such script\n" * 2


def test_several_scripts_are_asked_for_at_once(root: Path) -> None:
    with ScriptedDaemon(root, {"script:stop": {"together": 3, "reply": ok(ROW)}}):
        assert orion(root, "script", "stop", "a", "b", "c") == (0, "api: running, pid 42\n" * 3, "")


def test_all_means_every_script_that_the_daemon_knows(root: Path) -> None:
    rows = [ROW, ROW | {"name": "web"}]
    with ScriptedDaemon(root, {"script:list": ok(rows), "script:stop": ok(ROW)}) as daemon:
        assert orion(root, "script", "stop", "--all")[0] == 0
        assert {asked.get("name") for asked in daemon.take_requests()} == {None, "api", "web"}


@pytest.mark.parametrize(
    ("arguments", "shown"),
    [
        ([], ["T1 api info  up", "T2 api error \\x1b[2Jdown", "T3 api warn  odd"]),
        (["--level=warn"], ["T2 api error \\x1b[2Jdown", "T3 api warn  odd"]),
        (["--level=warn", "--lines=1"], ["T3 api warn  odd"]),
        (["--json", "--lines", "1"], [json.dumps(ENTRIES[2], separators=(",", ":"))]),
        (["--lines=0"], []),
    ],
)
def test_logs_shows_the_last_lines_of_a_level_and_above(arguments: list[str], shown: list[str], root: Path) -> None:
    with ScriptedDaemon(root, {"logs:tail": ok({"entries": ENTRIES})}):
        code, output, errors = orion(root, "logs", "api", *arguments)
    assert (code, errors, output.splitlines()) == (0, "", shown)


def test_followed_logs_are_shown_until_the_daemon_ends(root: Path) -> None:
    with ScriptedDaemon(root, {"logs:tail": [ok({"entry": entry}) for entry in ENTRIES]}) as daemon:
        code, output, errors = orion(root, "logs", "--follow", "--level=error")
        assert daemon.take_requests() == [{"cmd": "logs:tail", "follow": True, "lines": 1000}]
    assert (code, output) == (3, "T2 api error \\x1b[2Jdown\n")
    assert "closed the connection" in errors


@pytest.mark.parametrize(
    ("arguments", "shown"),
    [
        (["--level=warn", "--lines=1"], ["T3", "T4"]),
        (["--level=warn", "--lines=0"], ["T4"]),
        (["--level=warn"], ["T2", "T3", "T4"]),
        (["--level=fatal", "--lines=5"], []),
        (["--lines=3"], ["T1", "T2", "T3", "T4", "T5"]),
    ],
)
def test_a_followed_level_begins_with_as_many_lines_as_are_wanted(
    arguments: list[str], shown: list[str], root: Path
) -> None:
    past = [ok({"entry": entry, "pastLeft": left}) for left, entry in zip((2, 1, 0), ENTRIES, strict=True)]
    new = [ok({"entry": {**ENTRIES[1], "timestamp": "T4"}}), ok({"entry": {**ENTRIES[0], "timestamp": "T5"}})]
    with ScriptedDaemon(root, {"logs:tail": [*past, *new]}):
        _, output, _ = orion(root, "logs", "--follow", *arguments)
        _, as_json, _ = orion(root, "logs", "--follow", "--json", *arguments)
    assert [line.split()[0] for line in output.splitlines()] == shown
    found = [json.loads(line) for line in as_json.splitlines()]
    assert [line["timestamp"] for line in found if "timestamp" in line] == shown


def test_following_ends_well_on_ctrl_c(root: Path) -> None:
    with ScriptedDaemon(root, {"logs:tail": ok({"entry": ENTRIES[0]})}):
        process = subprocess.Popen([*ORION, "logs", "--follow"], env=environment(root), stdout=subprocess.PIPE)
        with process:
            assert process.stdout is not None
            assert process.stdout.readline() == b"T1 api info  up\n"
            process.send_signal(signal.SIGINT)
            assert process.wait(30) == 0


def test_a_reader_that_has_seen_enough_ends_the_command_quietly(root: Path) -> None:
    with ScriptedDaemon(root, {"logs:tail": ok({"entries": ENTRIES * 20000})}):
        process = subprocess.Popen(
            [*ORION, "logs"], env=environment(root), stdout=subprocess.PIPE, stderr=subprocess.PIPE
        )
        with process:
            assert process.stdout is not None
            assert process.stderr is not None
            process.stdout.readline()
            process.stdout.close()
            assert process.stderr.read() == b""
            assert process.wait(30) == 0


@pytest.mark.parametrize(
    "arguments", [["version"], ["version", "--json"], ["ping"], ["ping", "--json"], ["logs"], ["--help"], ["status"]]
)
def test_an_answer_that_finds_no_room_is_said_in_one_line(arguments: list[str], root: Path) -> None:
    answers = {"ping": ok({"version": "1"}), "logs:tail": ok({"entries": ENTRIES}), "status": ok({"text": "fine\n"})}
    with ScriptedDaemon(root, {**answers, "version": ok({"version": "1"})}), open("/dev/full", "wb") as full:
        done = subprocess.run(
            [*ORION, *arguments], env=environment(root), stdout=full, stderr=subprocess.PIPE, timeout=30, check=False
        )
    assert (done.returncode, done.stderr) == (1, b"orion: cannot write the answer: No space left on device\n")


def without_readers(root: Path, *arguments: str, errors_too: bool = False) -> tuple[int, bytes]:
    """Run a command whose output nobody reads; return its exit code and what it says on standard error."""
    reader, writer = os.pipe()
    os.close(reader)
    try:
        done = subprocess.run(
            [*ORION, *arguments], env=environment(root), stdout=writer,
            stderr=writer if errors_too else subprocess.PIPE, timeout=30, check=False,
        )  # fmt: skip
    finally:
        os.close(writer)
    return done.returncode, done.stderr or b""


@pytest.mark.parametrize(("arguments", "code"), [(["ping"], 3), (["status"], 3), (["nonsense"], 2)])
def test_a_failure_keeps_its_exit_code_where_nobody_reads(arguments: list[str], code: int, root: Path) -> None:
    found, errors = without_readers(root, *arguments, "--json")
    assert found == code
    assert errors.startswith(b"orion: ")
    assert b"Traceback" not in errors
    assert without_readers(root, *arguments, "--json", errors_too=True)[0] == code


def test_a_watched_status_ends_with_its_reader_even_without_a_daemon(root: Path) -> None:
    code, errors = without_readers(root, "status", "--watch", "--json")
    assert (code, errors.count(b"\n")) == (0, 1)


@pytest.mark.parametrize(
    "arguments",
    [
        ["status"],
        ["log", "info", "x"],
        ["logs"],
        ["logs", "--follow"],
        ["script", "list"],
        ["script", "add", "api", "x"],
        ["script", "set", "api", "user=x"],
        ["script", "remove", "api"],
        ["script", "start", "a", "b"],
        ["script", "start", "--all"],
        ["ping"],
        ["reload"],
        ["buffer", "flush"],
    ],
)
def test_without_a_daemon_one_line_says_how_to_start_it(arguments: list[str], root: Path) -> None:
    code, output, errors = orion(root, *arguments)
    assert (code, output) == (3, "")
    assert errors == (
        f"orion: the daemon is not running: no socket at {root}/run/orion/agent.sock; "
        f"start the daemon with: ORION_ROOT={root} orion daemon --foreground\n"
    )


def test_without_a_daemon_json_callers_get_the_code_too(root: Path) -> None:
    code, output, errors = orion(root, "script", "list", "--json")
    assert (code, json.loads(output)["code"]) == (3, "not-running")
    assert errors


@pytest.mark.parametrize(
    ("code", "exit_code"), [("not-permitted", 4), ("not-found", 1), ("bad-request", 2), ("config", 1), ("exists", 1)]
)
def test_a_refusal_s_code_decides_the_exit_code(code: str, exit_code: int, root: Path) -> None:
    with ScriptedDaemon(root, {"script:remove": refusal("cannot remove 'a': because\x07", code)}):
        assert orion(root, "script", "remove", "a") == (exit_code, "", "orion: cannot remove 'a': because\\x07\n")
        json_code, output, _ = orion(root, "script", "remove", "a", "--json")
    assert (json_code, json.loads(output)) == (exit_code, {"error": "cannot remove 'a': because\x07", "code": code})


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["log", "--meta=[1]", "info", "x"], "not a JSON object"),
        (["log", "--meta={", "info", "x"], "cannot read --meta"),
        (["logs", "--lines=many"], "not a whole number"),
        (["script", "set", "api", "user"], "no '='"),
        (["script", "set", "api", "user=a", "user=b"], "given twice"),
        (["script", "add", "api", "x", "--env=A"], "no '='"),
        (["script", "add", "api", "x", "--set=name=b"], "given twice"),
    ],
)
def test_words_that_mean_nothing_are_refused_before_anything_is_asked(
    arguments: list[str], said: str, root: Path
) -> None:
    code, output, errors = orion(root, *arguments)
    assert (code, output) == (2, "")
    assert said in errors


def test_a_json_answer_is_one_line_that_a_terminal_survives(root: Path) -> None:
    with ScriptedDaemon(root, {"script:list": ok([{"name": "a", "note": "\x9b2J\x7f \u202e \u00fc"}])}):
        code, output, _ = orion(root, "script", "list", "--json")
    assert code == 0
    assert output == '[{"name":"a","note":"\\u009b2J\\u007f \\u202e \u00fc"}]\n'


@pytest.mark.parametrize(("more", "color"), [({"TERM": "xterm"}, True), ({"TERM": "xterm", "NO_COLOR": "1"}, False)])
def test_a_terminal_gets_colour_unless_no_color_is_set(more: dict[str, str], color: bool, root: Path) -> None:
    rows = [ROW | {"note": "x" * 300}]
    with ScriptedDaemon(root, {"script:list": ok(rows), "status": ok({"text": "fine"})}) as daemon:
        terminal, ours = pty.openpty()
        try:
            for arguments in (["script", "list"], ["status"]):
                process = subprocess.Popen([*ORION, *arguments], env=environment(root, **more), stdout=ours)
                assert process.wait(30) == 0
            output = os.read(terminal, 65536)
        finally:
            os.close(terminal)
            os.close(ours)
        assert (b"\x1b[32mrunning" in output) is color
        assert daemon.take_requests()[-1]["color"] is color


@pytest.mark.parametrize(("sent", "remaining", "status"), [(3, 0, 0), (0, 0, 0), (3, 2, 0), (0, 2, 1)])
def test_a_flush_has_failed_when_something_waits_and_nothing_could_be_sent(
    sent: int, remaining: int, status: int, root: Path
) -> None:
    answer = {"sent": sent, "remaining": remaining, "link": {"state": "retrying"}}
    with ScriptedDaemon(root, {"buffer:flush": ok(answer)}):
        code, output, errors = orion(root, "buffer", "flush")
    why = ", the backend is retrying" if remaining else ""
    assert (code, output, errors) == (status, f"sent {sent} entries, {remaining} wait{why}\n", "")


def test_help_goes_to_standard_output(root: Path) -> None:
    code, output, errors = orion(root, "--help")
    assert (code, errors) == (0, "")
    assert "orion script add <name> <command>" in output


def test_a_watched_status_goes_on_until_ctrl_c(root: Path) -> None:
    with ScriptedDaemon(root, {"status": ok({"text": "agent fine\n"})}):
        process = subprocess.Popen([*ORION, "status", "--watch"], env=environment(root), stdout=subprocess.PIPE)
        with process:
            assert process.stdout is not None
            assert [process.stdout.readline() for _ in range(2)] == [b"agent fine\n"] * 2
            process.send_signal(signal.SIGINT)
            assert process.wait(30) == 0
