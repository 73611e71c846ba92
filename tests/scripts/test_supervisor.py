"""Scripts are started, kept running, told of and ended, down to the last process of their tree."""

import os
import signal
import sys
import time
from pathlib import Path
from typing import Any

import gevent
import pytest

from orionagent.config import load_scripts, parse_script, save_scripts
from orionagent.errors import BadRequest, Busy, ConfigError, Exists, NotFound
from orionagent.scripts.tree import read_stat
from tests.scripts.house import House, alive, wait_for


def test_output_arrives_apart_and_a_last_line_without_newline_is_kept(house: House) -> None:
    house.add("talk", "echo out; echo err >&2; printf tail")
    house.reach("talk", "stopped")
    wait_for(lambda: "tail" in house.lines("talk"), "the unfinished line")
    assert house.lines("talk") == ["out", "tail"]
    assert house.lines("talk", "stderr") == ["err"]
    assert house.alerts == []


def test_a_crash_alerts_with_code_and_last_lines_and_gives_up_after_the_last_restart(house: House) -> None:
    house.add("crash", "echo one; echo two >&2; exit 3", backoffBase=10, maxRestarts=3)
    row = house.reach("crash", "crashed")
    assert row["restarts"] == 2
    assert [(a.exitCode, a.crashesInARow, a.willRestart) for a in house.alerts] == [
        (3, 1, True),
        (3, 2, True),
        (3, 3, False),
    ]
    assert set(house.alerts[0].lastLines) == {"one", "two"}
    assert len({a.id for a in house.alerts}) == 3


def test_without_auto_restart_the_alert_is_sent_all_the_same(house: House) -> None:
    house.add("once", "kill -ABRT $$", autoRestart=False)
    house.reach("once", "crashed")
    assert [(a.signal, a.willRestart) for a in house.alerts] == [("SIGABRT", False)]


def test_a_killed_script_is_replaced(house: House) -> None:
    pid = house.add("steady", "sleep 1000", backoffBase=0)["pid"]
    os.kill(pid, signal.SIGKILL)
    new = wait_for(
        lambda: house.row("steady")["pid"] not in (pid, None) and house.row("steady")["pid"], "a replacement"
    )
    assert alive(new)
    assert house.alerts[0].signal == "SIGKILL"


@pytest.mark.parametrize("end", ["kill -KILL $$", "exit 137"])
def test_an_end_by_the_kernels_memory_killer_is_named_as_such(house: House, end: str) -> None:
    events = Path(house.paths.run, "memory.events")
    events.write_text("low 0\noom 4\noom_kill 4\noom_group_kill 0\n")
    house.add("innocent", end, autoRestart=False)
    house.reach("innocent", "crashed")
    house.add("eater", f"printf 'oom_kill 5\\n' >{events}; {end}", autoRestart=False)
    row = house.reach("eater", "crashed")
    assert row["lastExit"]["text"].endswith("(out of memory)")
    assert [alert.cause == "oom-kill" for alert in house.alerts] == [False, True]


def test_a_simple_command_is_the_process_itself_and_its_signal_is_reported_truly(house: House) -> None:
    pid = house.add("plain", "sleep 1000", autoRestart=False)["pid"]
    assert os.readlink(f"/proc/{pid}/exe").endswith(("sleep", "coreutils", "busybox"))
    os.kill(pid, signal.SIGUSR1)
    assert house.reach("plain", "crashed")["lastExit"]["signal"] == "SIGUSR1"


def test_stop_ends_the_whole_tree_even_what_fled_its_session(house: House) -> None:
    house.add("tree", "setsid sleep 999 & (setsid sleep 998 &); sleep 997", stopTimeout=5000)
    pids = wait_for(
        lambda: (
            len(house.supervisor.show("tree")["tree"]) >= 4
            and [t["pid"] for t in house.supervisor.show("tree")["tree"]]
        ),
        "all four processes",
    )
    assert house.supervisor.stop("tree")["phase"] == "stopped"
    assert not any(alive(pid) for pid in pids)


def test_a_crash_ends_what_the_main_process_leaves_behind(house: House) -> None:
    house.add("leaver", "setsid sleep 996 & echo $!; sleep 0.2; exit 1", autoRestart=False)
    house.reach("leaver", "crashed")
    left = int(house.lines("leaver")[0])
    wait_for(lambda: not alive(left), "the end of the leftover")


def test_after_exit_zero_leftovers_live_are_captured_and_end_with_stop(house: House) -> None:
    house.add("daemonizer", "(sleep 0.3; echo later; sleep 995) & exit 0")
    house.reach("daemonizer", "stopped")
    wait_for(lambda: house.lines("daemonizer") == ["later"], "the line of the one left behind")
    wait_for(lambda: "processes left" in (house.row("daemonizer")["note"] or ""), "the note")
    house.supervisor.stop("daemonizer")
    assert house.supervisor.show("daemonizer")["tree"] == []


def test_a_grandchild_that_holds_the_pipe_does_not_delay_the_exit_report(house: House) -> None:
    house.add("holder", "sleep 994 & exit 0")
    row = house.reach("holder", "stopped")
    assert row["lastExit"]["code"] == 0


def test_term_that_is_ignored_ends_in_kill_and_is_reported(house: House) -> None:
    house.add("stubborn", "trap '' TERM; while :; do sleep 0.05; done", stopTimeout=200)
    row = house.supervisor.stop("stubborn")
    assert "SIGKILL" in row["note"]


def test_a_stopped_process_still_obeys_stop(house: House) -> None:
    pid = house.add("frozen", "sleep 993")["pid"]
    os.kill(pid, signal.SIGSTOP)
    assert house.supervisor.stop("frozen")["lastExit"]["signal"] == "SIGTERM"


@pytest.mark.parametrize(
    ("command", "fields", "reason"),
    [
        ("no-such-command-here", {}, "no command 'no-such-command-here'"),
        ("/proc/self/status", {}, "Permission denied"),
        ("./gone", {}, "No such file"),
        ("sleep 1", {"envFile": "/no/such/env"}, "/no/such/env"),
    ],
)
def test_what_cannot_start_says_why_and_counts_as_a_crash(
    house: House, command: str, fields: dict[str, Any], reason: str
) -> None:
    row = house.add("broken", command, autoRestart=False, **fields)
    assert row["phase"] == "crashed"
    assert reason in row["lastExit"]["text"]
    assert house.alerts[0].cause == "spawn"
    assert reason in house.alerts[0].message


def test_a_folder_that_disappears_is_a_crash_with_its_name(house: House, root: Path) -> None:
    folder = root / "app"
    folder.mkdir()
    house.add("homeless", "sleep 992", cwd=str(folder), autoRestart=False)
    house.supervisor.stop("homeless")
    folder.rmdir()
    with pytest.raises(Exception, match=str(folder)):
        house.supervisor.start("homeless")


def test_stop_during_backoff_and_two_restarts_at_once_leave_one_instance(house: House) -> None:
    house.add("late", "exit 1", backoffBase=60_000)
    house.reach("late", "backoff")
    assert house.supervisor.stop("late")["phase"] == "stopped"
    house.add("twice", "echo run; sleep 991")
    gevent.joinall([gevent.spawn(house.supervisor.restart, "twice") for _ in range(2)])
    tree = house.supervisor.show("twice")["tree"]
    assert len([t for t in tree if t["ppid"] == os.getpid()]) == 1


def test_closing_stdout_costs_no_cpu(house: House) -> None:
    house.add("mute", "exec >&- 2>&-; sleep 990")
    before = time.process_time()
    gevent.sleep(0.5)
    assert time.process_time() - before < 0.25


def test_environment_is_the_users_not_the_agents(house: House, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NOTIFY_SOCKET", "/secret")
    house.add("env", "env", env={"MINE": "1"})
    wait_for(lambda: any(line.startswith("ORION_SCRIPT=env") for line in house.lines("env")), "the environment")
    names = {line.partition("=")[0] for line in house.lines("env")}
    assert {"PATH", "HOME", "USER", "LOGNAME", "SHELL", "LANG", "MINE"} <= names
    assert "NOTIFY_SOCKET" not in names


@pytest.mark.skipif(os.geteuid() != 0, reason="becoming another user needs root")
def test_another_user_may_open_its_own_dev_stderr(house: House) -> None:
    house.add("other", "id -un; echo loud > /dev/stderr", user="nobody")
    wait_for(lambda: house.lines("other", "stderr") == ["loud"], "the line through /dev/stderr")
    assert house.lines("other") == ["nobody"]


def test_umask_nice_limits_and_working_folder_are_as_asked(house: House) -> None:
    house.add("set", "umask; nice; ulimit -n; ulimit -c; pwd", umask="027", nice=5, limits={"nofile": 99, "core": 0})
    wait_for(lambda: len(house.lines("set")) == 5, "five lines")
    assert house.lines("set") == ["0027", "5", "99", "0", "/tmp"]


def test_capture_off_sends_nothing(house: House) -> None:
    house.add("quiet", "echo unseen; exit 4", captureOutput=False, autoRestart=False)
    house.reach("quiet", "crashed")
    assert house.lines("quiet") == []
    assert house.alerts[0].lastLines == ()


def test_a_script_over_its_memory_limit_is_ended_and_named_so(house: House) -> None:
    code = "import time; x = bytearray(80 << 20); time.sleep(900)"
    house.add("greedy", f'{sys.executable} -c "{code}"', maxMemoryMb=40, autoRestart=False)
    house.reach("greedy", "crashed")
    assert house.alerts[0].cause == "memory-limit"


def test_orphans_are_reaped(house: House) -> None:
    house.add("forker", "for i in 1 2 3 4 5 6 7 8; do (sh -c 'exit 0' &); done; sleep 989")
    wait_for(lambda: len(house.supervisor.show("forker")["tree"]) == 2 or True, "the loop's end")
    house.supervisor.reap()

    def zombies() -> bool:
        house.supervisor.reap()
        stats = [read_stat(int(n)) for n in os.listdir("/proc") if n.isdigit()]
        return not any(s is not None and s.ppid == os.getpid() and s.state == "Z" for s in stats)

    wait_for(zombies, "no zombie left")


def test_adding_twice_unknown_names_and_missing_folders_are_refused_and_change_nothing(house: House) -> None:
    house.add("api", "sleep 988")
    before = Path(house.paths.scripts).read_bytes()
    with pytest.raises(Exists):
        house.add("api", "sleep 1")
    with pytest.raises(NotFound, match="did you mean api"):
        house.supervisor.stop("apy")
    with pytest.raises(ConfigError, match="/no/such/folder"):
        house.supervisor.add(parse_script({"name": "b", "command": "true", "cwd": "/no/such/folder"}))
    with pytest.raises(BadRequest):
        house.supervisor.update("api", {"name": "other"})
    assert Path(house.paths.scripts).read_bytes() == before
    assert [row["name"] for row in house.supervisor.rows()] == ["api"]


def test_reload_touches_only_what_changed(house: House) -> None:
    house.add("same", "sleep 987")
    house.add("edited", "sleep 986")
    house.add("gone", "sleep 985")
    pids = {row["name"]: row["pid"] for row in house.supervisor.rows()}
    scripts = [s for s in load_scripts(house.paths) if s.name != "gone"]
    scripts[1] = parse_script({"name": "edited", "command": "sleep 984", "cwd": "/tmp"})
    scripts.append(parse_script({"name": "new", "command": "sleep 983", "cwd": "/tmp"}))
    save_scripts(house.paths, scripts)
    assert house.supervisor.reload() == {"changed": ["edited"], "added": ["new"], "removed": ["gone"]}
    assert house.row("same")["pid"] == pids["same"]
    assert house.row("edited")["pid"] != pids["edited"]
    assert not alive(pids["gone"])
    assert house.row("new")["phase"] == "running"


def test_an_update_that_changes_nothing_leaves_the_script_running(house: House) -> None:
    pid = house.add("app", "sleep 900")["pid"]
    assert house.supervisor.update("app", {"command": "sleep 900"})["pid"] == pid


def test_another_source_and_level_hold_from_the_next_run_on(house: House) -> None:
    house.add("app", "echo loud >&2; sleep 900")
    wait_for(lambda: house.lines("app", "stderr") == ["loud"], "a line under the old source")
    house.supervisor.update("app", {"source": "shop", "stderrLevel": "warn"})
    wait_for(lambda: house.lines("shop", "stderr") == ["loud"], "a line under the new one")
    assert [(b.source, b.levels) for b in house.batches] == [("app", "error"), ("shop", "warn")]


def test_an_order_that_cannot_be_kept_is_refused(house: House) -> None:
    house.add("db", "sleep 982")
    house.add("api", "sleep 981", after=["db"])
    with pytest.raises(ConfigError, match="wait for each other"):
        house.supervisor.update("db", {"after": ["api"]})
    with pytest.raises(BadRequest, match="api"):
        house.supervisor.remove("db")


def test_the_next_supervisor_takes_running_scripts_back_with_their_output_and_counters(house: House) -> None:
    house.add("lasting", "n=0; while :; do n=$((n+1)); echo $n; sleep 0.02; done", backoffBase=0)
    wait_for(lambda: bool(house.lines("lasting")), "a line of the first run")
    os.kill(house.row("lasting")["pid"], signal.SIGKILL)
    wait_for(lambda: house.row("lasting")["restarts"] == 1, "one restart")
    wait_for(lambda: house.lines("lasting")[-1:] > ["1"] and len(house.lines("lasting")) > 5, "some lines")
    pid = house.row("lasting")["pid"]
    house.supervisor.let_go(close=True)
    gevent.sleep(0.2)
    house.supervisor = house.make()
    house.supervisor.start_all(load_scripts(house.paths))
    row = house.row("lasting")
    assert (row["pid"], row["restarts"], row["phase"]) == (pid, 1, "running")
    seen = len(house.lines("lasting"))
    wait_for(lambda: len(house.lines("lasting")) > seen + 20, "more lines")
    numbers = [int(line) for line in house.lines("lasting")]
    second_run = numbers[numbers.index(1, 1) :]
    assert second_run == list(range(1, len(second_run) + 1))


def test_a_script_that_ended_while_nobody_watched_is_reported_as_unknown_and_started_anew(house: House) -> None:
    pid = house.add("unseen", "sleep 980", backoffBase=0)["pid"]
    house.supervisor.let_go(close=True)
    os.kill(pid, signal.SIGKILL)
    os.waitpid(pid, 0)
    house.supervisor = house.make()
    house.supervisor.start_all(load_scripts(house.paths))
    wait_for(lambda: house.row("unseen")["pid"] not in (None, pid), "a new instance")
    assert house.alerts[-1].cause == "unknown"


def test_the_run_after_an_end_for_memory_is_left_alone_by_that_end(house: House) -> None:
    mark = Path(house.paths.root, "mark")
    eat = f"exec {sys.executable} -c 'import time; x = bytearray(80 << 20); time.sleep(900)'"
    command = f"[ -e {mark} ] || {{ : >{mark}; {eat}; }}; sleep 1; echo still here; exec sleep 977"
    house.add("greedy", command, maxMemoryMb=40, backoffBase=0)
    wait_for(lambda: house.lines("greedy") == ["still here"], "a line of the second run")
    assert [alert.cause for alert in house.alerts] == ["memory-limit"]
    assert (house.row("greedy")["phase"], house.row("greedy")["restarts"]) == ("running", 1)


def test_no_descriptor_is_kept_under_a_name_that_no_longer_means_it(house: House) -> None:
    house.add("api", "sleep 976")
    assert sorted(house.kept) == ["api.pid", "api.stderr", "api.stdout"]
    house.supervisor.update("api", {"captureOutput": False})
    house.reach("api", "running")
    assert sorted(house.kept) == ["api.pid"]
    house.supervisor.remove("api")
    assert house.kept == {}


def test_nothing_starts_any_more_once_the_stop_has_begun(house: House) -> None:
    house.add("slow", "trap '' TERM; while :; do sleep 0.05; done", stopTimeout=700)
    house.add("quick", "sleep 975")
    stopping = gevent.spawn(house.supervisor.stop_all)
    house.reach("quick", "stopped")
    for ask in (house.supervisor.start, house.supervisor.restart):
        with pytest.raises(Busy, match="the agent is stopping"):
            ask("quick")
    stopping.join()
    assert {row["phase"] for row in house.supervisor.rows()} == {"stopped"}


def test_a_reload_while_a_script_of_the_past_is_being_ended_disturbs_nobody(house: House) -> None:
    house.add("past", "trap '' TERM; while :; do sleep 0.05; done", stopTimeout=500)
    house.supervisor.let_go(close=True)
    save_scripts(house.paths, [])
    house.supervisor = house.make()
    house.supervisor.start_all(load_scripts(house.paths))
    house.supervisor.reload()
    wait_for(lambda: house.supervisor.rows() == [], "the end of it")
    gevent.sleep(0.1)
    assert house.failures == []
