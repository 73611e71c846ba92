"""What an application can do to its supervisor, and the machine to both: nothing is lost, nobody else is harmed."""

import os
import pwd
import resource
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import gevent
import msgspec
import pytest

from orionagent.config import load_scripts, parse_script, save_scripts
from orionagent.scripts.handover import STATE_VERSION, ScriptRecord, StateRecord, read_definition, save_state
from orionagent.scripts.tree import Census, read_boot_id, read_stat
from tests.scripts.house import House, alive, wait_for

PYTHON = f"{sys.executable} -S -c"


def zombies() -> list[int]:
    """Return our ended children that nobody has reaped."""
    found = []
    for name in os.listdir("/proc"):
        stat = read_stat(int(name)) if name.isdigit() else None
        if stat is not None and stat.ppid == os.getpid() and stat.state == "Z":
            found.append(stat.pid)
    return found


@pytest.fixture
def stranger() -> Iterator["subprocess.Popen[bytes]"]:
    """Yield a process, leader of its session, that is none of ours."""
    with subprocess.Popen(["sleep", "900"], start_new_session=True) as process:
        yield process
        process.kill()


@pytest.fixture
def locked(root: Path) -> Path:
    """Return a folder that only root may enter, below one that everybody may."""
    root.chmod(0o755)
    folder = root / "locked"
    folder.mkdir(mode=0o700)
    return folder


@pytest.mark.skipif(os.geteuid() != 0, reason="becoming another user needs root")
def test_a_folder_that_the_user_may_not_enter_is_a_crash_with_its_own_reason(house: House, locked: Path) -> None:
    row = house.add("app", "sleep 900", user="nobody", cwd=str(locked), autoRestart=False)
    reason = f"cannot run app: cannot change to the folder ({locked}): Permission denied"
    assert (row["phase"], row["lastExit"]["text"]) == ("crashed", reason)
    assert (house.alerts[0].cause, house.alerts[0].message) == ("spawn", f"app crashed: {reason}; no restart")


@pytest.mark.parametrize(("field", "what"), [("user", "no user 'gone'"), ("group", "no group 'gone'")])
def test_a_user_or_group_that_is_gone_is_a_crash_with_its_name(house: House, field: str, what: str) -> None:
    script = {"name": "app", "command": "sleep 900", "cwd": "/tmp", field: "gone", "autoRestart": False}
    save_scripts(house.paths, [parse_script(script)])  # by hand: the command would have refused it
    house.supervisor.reload()
    assert what in house.reach("app", "crashed")["lastExit"]["text"]
    assert what in house.alerts[0].message


def test_a_program_starts_with_default_signals_none_of_them_blocked_or_ignored(house: House) -> None:
    assert signal.getsignal(signal.SIGPIPE) == signal.SIG_IGN  # as in every Python program
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGUSR1})
    try:
        house.add("app", "cat /proc/self/status")
    finally:
        signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGUSR1})
    house.reach("app", "stopped")
    masks = dict(line.split(":\t") for line in house.lines("app") if line.startswith("Sig"))
    own = 0b11 << 31  # 32 and 33 are the C library's own, which ignores them in what posix_spawn starts
    assert {int(masks[name], 16) & ~own for name in ("SigBlk", "SigIgn", "SigCgt")} == {0}


@pytest.mark.skipif(os.geteuid() != 0, reason="becoming another user needs root")
def test_home_and_friends_are_the_target_user_s(house: House) -> None:
    house.add("app", "env", user="nobody")
    house.reach("app", "stopped")
    found = dict(line.partition("=")[::2] for line in house.lines("app"))
    nobody = pwd.getpwnam("nobody")
    names = ("HOME", "USER", "LOGNAME", "SHELL")
    assert [found[name] for name in names] == [nobody.pw_dir, "nobody", "nobody", nobody.pw_shell]


def test_the_start_of_a_running_script_changes_nothing(house: House) -> None:
    pid = house.add("app", "sleep 900")["pid"]
    row = house.supervisor.start("app")
    assert (row["pid"], row["restarts"], row["phase"]) == (pid, 0, "running")
    assert len(house.supervisor.show("app")["tree"]) == 1


def test_a_script_removed_while_earlier_ones_start_holds_nobody_up(house: House) -> None:
    house.supervisor.let_go(close=True)
    scripts = [{"name": "slow", "command": "sleep 900", "cwd": "/tmp"}]
    scripts += [{"name": name, "command": "sleep 900", "cwd": "/tmp", "after": ["slow"]} for name in ("gone", "last")]  # type: ignore[dict-item]
    configs = [parse_script(script) for script in scripts]
    save_scripts(house.paths, configs)
    house.supervisor = house.make()
    house.supervisor.take_back(configs)
    starter = gevent.spawn(house.supervisor.start_rest)
    house.supervisor.remove("gone")
    starter.get(timeout=30)
    assert {row["name"]: row["phase"] for row in house.supervisor.rows()} == {"slow": "running", "last": "running"}


FREEZER = Path("/sys/fs/cgroup/freezer")


@pytest.fixture
def freezer() -> Iterator[Path]:
    """Yield a cgroup that makes its members unkillable while it is frozen; thawed and removed in the end."""
    folder = FREEZER / f"orion-test-{os.getpid()}"
    folder.mkdir()
    yield folder
    (folder / "freezer.state").write_text("THAWED")
    wait_for(lambda: not (folder / "cgroup.procs").read_text(), "its members' end")
    folder.rmdir()


@pytest.mark.skipif(not os.access(FREEZER, os.W_OK), reason="needs a cgroup v1 freezer: on v2 a frozen process dies")
def test_a_stop_names_what_even_kill_does_not_end_and_is_done_once_that_ends(house: House, freezer: Path) -> None:
    pid = house.add("stuck", "sleep 900", stopTimeout=200)["pid"]
    (freezer / "cgroup.procs").write_text(str(pid))
    (freezer / "freezer.state").write_text("FROZEN")
    wait_for(lambda: (freezer / "freezer.state").read_text().strip() == "FROZEN", "the frost")
    stopper = gevent.spawn(house.supervisor.stop, "stuck")
    wait_for(lambda: house.row("stuck")["note"], "word of what cannot be ended")
    assert house.row("stuck")["note"] == f"cannot end pid {pid}: in uninterruptible sleep, or not ours to signal"
    assert house.row("stuck")["phase"] == "stopping"
    (freezer / "freezer.state").write_text("THAWED")
    assert stopper.get(timeout=30)["phase"] == "stopped"
    assert not alive(pid)


def test_five_hundred_children_a_second_leave_no_zombie_and_cost_next_to_nothing(house: House) -> None:
    code = (
        "import os, time\\n"
        "while True:\\n"
        "    for _ in range(25):\\n"
        "        pid = os.fork()\\n"
        "        if pid == 0:\\n"
        "            os.fork() and os._exit(0)\\n"
        "            os._exit(0)\\n"
        "        os.waitpid(pid, 0)\\n"
        "    time.sleep(0.1)\\n"
    )
    house.add("forker", f"{PYTHON} \"exec('{code}')\"")
    wait_for(zombies, "orphans left to us")
    wall, cpu = time.monotonic(), time.process_time()
    while time.monotonic() - wall < 2.0:
        gevent.sleep(0.1)
        house.supervisor.reap()
        assert len(zombies()) < 250
    assert (time.process_time() - cpu) / (time.monotonic() - wall) < 0.5
    house.supervisor.stop("forker")
    house.supervisor.reap()
    assert zombies() == []


def test_a_stranger_who_got_the_number_of_our_process_is_never_signalled(
    house: House, stranger: "subprocess.Popen[bytes]"
) -> None:
    config = parse_script({"name": "app", "command": "sleep 900", "cwd": "/tmp", "autoRestart": False})
    stat = read_stat(stranger.pid)
    assert stat is not None
    house.supervisor.let_go(close=True)
    save_scripts(house.paths, [config])
    record = ScriptRecord(
        name="app",
        definition=msgspec.to_builtins(config),
        phase="running",
        tree=True,
        pid=stranger.pid,
        start_ticks=stat.start_ticks - 1,
    )
    save_state(
        house.paths.state,
        StateRecord(version=STATE_VERSION, boot_id=read_boot_id(), agent_pid=1, scripts=[record]),
    )
    house.supervisor = house.make()
    house.supervisor.start_all(load_scripts(house.paths))
    assert house.reach("app", "crashed")["lastExit"]["text"] == "ended with unknown status"
    house.supervisor.stop("app")
    assert stranger.poll() is None
    assert house.supervisor.show("app")["tree"] == []


def test_a_state_file_of_another_boot_is_not_believed(house: House, stranger: "subprocess.Popen[bytes]") -> None:
    config = parse_script({"name": "app", "command": "sleep 900", "cwd": "/tmp", "enabled": False})
    stat = read_stat(stranger.pid)
    assert stat is not None
    house.supervisor.let_go(close=True)
    save_scripts(house.paths, [config])
    record = ScriptRecord(
        name="app", definition={}, phase="running", tree=True, pid=stranger.pid, start_ticks=stat.start_ticks
    )
    save_state(house.paths.state, StateRecord(version=STATE_VERSION, boot_id="another", agent_pid=1, scripts=[record]))
    house.supervisor = house.make()
    house.supervisor.start_all(load_scripts(house.paths))
    assert house.row("app")["phase"] == "stopped"
    assert stranger.poll() is None
    assert house.alerts == []


def test_a_record_of_another_version_keeps_what_this_one_understands() -> None:
    record = ScriptRecord(
        name="app", definition={"name": "app", "command": "sleep 1", "fromTomorrow": 1, "nice": "odd"}, phase="running"
    )
    found = read_definition(record)
    assert (found.name, found.command, found.nice) == ("app", "sleep 1", None)


def test_an_agent_killed_while_it_ends_a_crashed_tree_has_it_ended_and_restarted_by_the_next(house: House) -> None:
    house.add(
        "app", "(trap '' TERM; while :; do sleep 0.05; done) & sleep 0.3; exit 3", backoffBase=0, stopTimeout=60_000
    )
    first = house.reach("app", "backoff")["lastExit"]
    house.supervisor.let_go(close=True)
    scripts = [parse_script({**msgspec.to_builtins(s), "stopTimeout": 200}) for s in load_scripts(house.paths)]
    save_scripts(house.paths, scripts)
    house.supervisor = house.make()
    house.supervisor.start_all(scripts)
    assert house.row("app")["lastExit"] == first
    wait_for(lambda: house.row("app")["restarts"] >= 1, "the restart")


def test_a_shortage_of_descriptors_passes_and_the_script_comes_up(house: House) -> None:
    pid = house.add("app", "sleep 900", backoffBase=100)["pid"]
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (3, hard))
    try:
        os.kill(pid, signal.SIGKILL)
        wait_for(lambda: house.row("app")["pid"] is None, "the end")
        gevent.sleep(0.5)  # a while in which nothing can be opened
        assert house.row("app")["pid"] is None
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    wait_for(lambda: house.row("app")["pid"] not in (None, pid), "a new instance")


def test_stop_during_the_start_leaves_nothing_running(house: House) -> None:
    house.add("app", "sleep 900", enabled=False)
    starter = gevent.spawn(house.supervisor.start, "app")
    stopper = gevent.spawn(house.supervisor.stop, "app")
    gevent.joinall([starter, stopper])
    assert house.reach("app", "stopped")["pid"] is None
    assert house.supervisor.show("app")["tree"] == []


def test_fifty_scripts_that_crash_together_come_back_apart(house: House) -> None:
    save_scripts(
        house.paths,
        [
            parse_script({"name": f"app-{n}", "command": "sleep 900", "cwd": "/tmp", "backoffBase": 2000})
            for n in range(50)
        ],
    )
    house.supervisor.reload()
    pids = [row["pid"] for row in house.supervisor.rows()]
    for pid in pids:
        os.kill(pid, signal.SIGKILL)
    wait_for(lambda: len(house.alerts) == 50, "an alert for each")
    delays = {alert.restartInMs for alert in house.alerts}
    assert len(delays) > 10
    wait_for(lambda: all(row["phase"] == "running" for row in house.supervisor.rows()), "all run again")
    assert not any(alive(pid) for pid in pids)


def test_a_script_that_is_renamed_in_the_file_and_one_that_is_removed_end_with_their_trees(
    house: House, root: Path
) -> None:
    house.add("old", "sleep 900")
    house.add("other", "sleep 900")
    house.add("gone", "sleep 900 & sleep 900")
    tree = [t["pid"] for t in house.supervisor.show("gone")["tree"]]
    pids = {row["name"]: row["pid"] for row in house.supervisor.rows()}
    house.supervisor.remove("gone")
    text = Path(house.paths.scripts).read_text(encoding="utf-8").replace('"old"', '"new"')
    Path(house.paths.scripts).write_text(text, encoding="utf-8")
    house.supervisor.reload()
    assert house.row("other")["pid"] == pids["other"]
    assert house.row("new")["phase"] == "running"
    assert not any(alive(pid) for pid in (pids["old"], *tree))
    assert sorted(os.listdir(house.paths.streams))[0].startswith("new.")


def test_the_application_killed_behind_its_shell_is_named_by_its_signal(house: House) -> None:
    house.add("behind", "sleep 900; exit $?", autoRestart=False)
    row = house.row("behind")
    inner = wait_for(
        lambda: [s.pid for s in Census.take("").processes.values() if s.ppid == row["pid"]],
        "the application behind the shell",
    )[0]
    os.kill(inner, signal.SIGKILL)
    assert house.reach("behind", "crashed")["lastExit"]["text"] == "killed by SIGKILL behind its shell"
    assert (house.alerts[0].cause, house.alerts[0].signal, house.alerts[0].exitCode) == ("signal", "SIGKILL", None)
