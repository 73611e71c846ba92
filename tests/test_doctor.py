"""The doctor finds what is wrong with an installation and names the remedy; a sound one is left alone."""

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from orionagent import __version__
from orionagent.doctor import check_clock, check_delivery, check_unit, diagnose
from orionagent.findings import Finding, is_sick, render_findings
from orionagent.paths import Paths
from tests.console.process import ConsoleProcess
from tests.scripted_daemon import ScriptedDaemon, ok

ORION = [sys.executable, "-I", "-S", str(Path(__file__).parents[1] / "bin" / "orion")]
STATUS: dict[str, Any] = {
    "version": __version__,
    "uptimeSeconds": 60.0,
    "configError": None,
    "link": {"state": "connected"},
    "buffer": {"entries": 0},
}


@pytest.fixture
def console(root: Path) -> Iterator[ConsoleProcess]:
    with ConsoleProcess(root / "console") as found:
        yield found


@pytest.fixture
def sound(paths: Paths, console: ConsoleProcess) -> Iterator[Paths]:
    """Yield an installation with nothing to mend."""
    write(paths.config, {"token": console.token, "apiUrl": console.url}, 0o600)
    write(paths.scripts, [{"name": "api", "command": "true", "cwd": "/"}], 0o644)
    with ScriptedDaemon(Path(paths.root), {"status": ok(STATUS)}):
        yield paths


def write(path: str, value: object, mode: int) -> None:
    Path(path).write_text(json.dumps(value), encoding="utf-8")
    os.chmod(path, mode)


def problems(paths: Paths) -> list[Finding]:
    found = [finding for finding in diagnose(paths, "web1") if finding.level in ("problem", "warning")]
    assert all(finding.remedy for finding in found), found
    return found


def test_a_sound_installation_has_nothing_to_mend(sound: Paths, console: ConsoleProcess) -> None:
    findings = diagnose(sound, "web1")
    assert not is_sick(findings), findings
    assert {finding.subject for finding in findings} == {"disk", "config", "scripts", "backend", "daemon", "buffer"}
    assert console.token not in str(findings)


def test_the_exit_code_and_json_are_for_scripts(sound: Paths) -> None:
    environment = {"ORION_ROOT": sound.root, "PATH": os.environ["PATH"]}
    for break_it, code in ((False, 0), (True, 1)):
        if break_it:
            os.chmod(sound.config, 0o644)
        done = subprocess.run(
            [*ORION, "doctor", "--json"], env=environment, capture_output=True, timeout=60, check=False
        )
        assert (done.returncode, done.stderr) == (code, b"")
        levels = [finding["level"] for finding in json.loads(done.stdout)]
        assert ("problem" in levels) is break_it


def test_a_config_that_others_can_read_is_a_problem(sound: Paths) -> None:
    os.chmod(sound.config, 0o640)
    (found,) = problems(sound)
    assert found.remedy == f"sudo chmod 600 {sound.config}"


def test_a_folder_that_others_can_write_is_a_problem(sound: Paths) -> None:
    os.chmod(sound.etc, 0o777)
    assert f"sudo chmod go-w {sound.etc}" in [finding.remedy for finding in problems(sound)]


def test_nothing_set_up_is_said_with_the_way_to_do_it(root: Path) -> None:
    found = diagnose(Paths(str(root)), "web1")
    assert is_sick(found)
    assert "sudo orion setup --server" in [finding.remedy for finding in found]
    assert any("not running" in finding.text for finding in found)


@pytest.mark.parametrize(
    ("script", "said"),
    [
        ({"name": "a", "command": "x", "cwd": "/no/such/folder"}, "no folder /no/such/folder"),
        ({"name": "a", "command": "x", "user": "no-such-user"}, "no user 'no-such-user'"),
        ({"name": "a", "command": "x", "envFile": "/no/such/file"}, "/no/such/file"),
        ({"name": "a", "comand": "x"}, "command"),
    ],
)
def test_a_script_that_cannot_start_is_a_problem(script: dict[str, str], said: str, sound: Paths) -> None:
    write(sound.scripts, [script], 0o644)
    (found,) = problems(sound)
    assert said in f"{found.text}; {found.remedy}"


def test_a_missing_user_is_mended_by_the_line_that_is_named(sound: Paths) -> None:
    write(sound.scripts, [{"name": "a", "command": "x", "user": "no-such-user"}], 0o644)
    (found,) = problems(sound)
    assert found.remedy == "make it, or: sudo orion script set a user=..., or: orion script remove a"


def test_an_application_s_token_that_others_can_read_is_a_problem(sound: Paths, root: Path) -> None:
    (root / ".orion").mkdir()
    write(f"{root}/.orion/config.json", {"token": "t"}, 0o644)
    write(sound.scripts, [{"name": "a", "command": "x", "cwd": str(root)}], 0o644)
    (found,) = problems(sound)
    assert found.remedy == f"sudo chmod 600 {root}/.orion/config.json"


@pytest.mark.skipif(os.geteuid() != 0, reason="giving a file away needs root")
def test_an_application_s_token_that_is_reached_by_a_link_to_another_s_is_a_problem(sound: Paths, root: Path) -> None:
    (root / "b").mkdir()
    write(f"{root}/b/config.json", {"token": "t"}, 0o600)
    (root / "a").mkdir()
    (root / "a" / ".orion").symlink_to(root / "b")
    os.chown(root / "a", 1001, 1001)
    write(sound.scripts, [{"name": "a", "command": "x", "cwd": f"{root}/a"}], 0o644)
    (found,) = problems(sound)
    assert f"refusing {root}/a/.orion: it is a symbolic link" in found.text
    assert found.text.endswith("the server's token is used")
    assert found.remedy.endswith(f"sudo rm {root}/a/.orion")


def test_a_buffer_that_cannot_be_one_or_that_others_can_read_is_a_problem(sound: Paths) -> None:
    write(sound.buffer, {}, 0o644)
    (found,) = problems(sound)
    assert found.remedy == f"sudo chmod 600 {sound.buffer}"
    os.remove(sound.buffer)
    os.mkdir(sound.buffer)
    (found,) = problems(sound)
    assert "is not a file" in found.text


@pytest.mark.parametrize(
    ("said", "remedies"),
    [
        ({"cat": "[Unit]", "is-enabled": "enabled", "is-active": "active"}, []),
        ({"cat": "[Unit]", "is-enabled": "disabled", "is-active": "active"}, ["sudo systemctl enable orion-agent"]),
        (
            {"cat": "[Unit]", "is-enabled": "enabled", "is-active": "failed"},
            ["sudo systemctl start orion-agent; journalctl -u orion-agent says why it ended"],
        ),
        ({}, ["curl -fsSL https://install.orion.dev | bash"]),
    ],
)
def test_the_service_is_judged_by_what_systemctl_says(
    said: dict[str, str], remedies: list[str], root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for word, answer in said.items():
        (root / word).write_text(answer, encoding="utf-8")
    program = root / "systemctl"
    program.write_text(f'#!/bin/sh\ncat "{root}/$1" 2>/dev/null\n', encoding="utf-8")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{root}:{os.environ['PATH']}")
    assert [each.remedy for each in check_unit(Paths("/"), str(root)) if each.level == "problem"] == remedies
    assert list(check_unit(Paths("/"), f"{root}/not-booted")) == []


def test_a_daemon_whose_token_is_refused_is_mended_by_the_set_up() -> None:
    said = "cannot send logs to http://x: the token is not accepted; run: sudo orion setup --server"
    found = next(check_delivery({"link": {"state": "paused", "lastError": said}}))
    assert found.text == "the daemon is paused: cannot send logs to http://x: the token is not accepted"
    assert found.remedy == "sudo orion setup --server"


def test_what_this_user_may_not_look_at_is_not_called_sound() -> None:
    hidden = Finding("note", "config", "/etc/orion/config.json is not for this user", "sudo orion doctor")
    assert render_findings([hidden], color=False).endswith("nothing to mend, as far as this user can look\n")


def test_a_registry_that_others_can_write_is_a_problem(sound: Paths) -> None:
    os.chmod(sound.scripts, 0o666)
    (found,) = problems(sound)
    assert "others can write" in found.text


def test_a_wrong_token_and_a_backend_that_is_not_there_are_told_apart(sound: Paths, console: ConsoleProcess) -> None:
    write(sound.config, {"token": "wrong-token", "apiUrl": console.url}, 0o600)
    (found,) = problems(sound)
    assert found.remedy == "sudo orion setup --server"
    assert "wrong-token" not in str(found)
    write(sound.config, {"token": "wrong-token", "apiUrl": "http://127.0.0.1:1"}, 0o600)
    (found,) = problems(sound)
    assert "Connection refused" in found.text


def test_a_daemon_in_trouble_tells_its_trouble() -> None:
    status = {
        "link": {"state": "retrying", "lastError": "no route"},
        "buffer": {"entries": 5, "droppedTotal": 2, "rejectedTotal": 1, "memoryOnly": True, "diskError": "disk full"},
    }
    texts = [finding.text for finding in check_delivery(status)]
    assert "the daemon is retrying: no route" in texts
    assert "entries are kept in memory only: disk full" in texts
    assert any(text.startswith("2 entries dropped") for text in texts)
    assert any(text.startswith("1 entry refused") for text in texts)


@pytest.mark.parametrize(("skew_s", "level"), [(None, None), (4.0, None), (-30.0, "warning"), (3600.0, "problem")])
def test_a_clock_that_is_off_is_judged_by_how_much(skew_s: float | None, level: str | None) -> None:
    assert [finding.level for finding in check_clock(skew_s)] == ([] if level is None else [level])


def test_findings_are_lines_with_their_remedies_below_and_harmless_to_a_terminal() -> None:
    text = render_findings(
        [Finding("problem", "config", "bad\x1b[2J", "mend it"), Finding("ok", "disk", "fine")], color=False
    )
    assert text == ("problem  config   bad\\x1b[2J\n                  -> mend it\nok       disk     fine\n1 to mend\n")
