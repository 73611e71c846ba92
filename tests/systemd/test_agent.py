"""The packaged agent on a machine with a real systemd: installed, killed, hung, reloaded, booted, stopped."""

import re
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.packaging.releases import add_broken_daemon, compile_dying_agent, offer
from tests.systemd.fleet import Server, running

pytestmark = pytest.mark.system

KILLS = 20
UPGRADES = 5
UNIT = "orion-agent"
RSS_LIMIT_KIB = 42 * 1024


@pytest.fixture(scope="module")
def releases(build: Callable[[str], Path]) -> Iterator[Path]:
    """Yield a download site with two versions of this checkout."""
    with tempfile.TemporaryDirectory(prefix="or-site-", dir="/tmp") as name:
        offer(Path(name), build("1.0.0"), build("1.1.0"))
        yield Path(name)


@pytest.fixture(scope="module")
def booted(releases: Path) -> Iterator[Server]:
    """Yield a server with the agent at work, for all tests of this module."""
    with running(releases) as server:
        yield server


@pytest.fixture
def server(booted: Server) -> Iterator[Server]:
    """Yield the server with an agent that runs and without a script of an earlier test."""
    booted.forget_lines()
    yield booted
    booted.remove_script(booted.writer)


def check_whole(server: Server) -> None:
    """Check that every line the writer wrote before it ended has arrived, once and in order."""
    messages = server.messages()
    found = [int(message.split(" ")[1]) for message in messages]
    lost = sorted(set(range(1, max(found) + 1)) - set(found))
    assert not lost, f"{len(lost)} lines are lost, the first is {lost[0]}\n{server.run('orion', 'status').stdout}"
    wrong = next((n for n, number in enumerate(found, start=1) if number != n), None)
    assert wrong is None, f"line {found[wrong - 1]} has come in place of {wrong}"
    assert messages[-1] == f"last {len(found)}"


def write_more(server: Server, count: int = 500) -> None:
    """Wait until `count` more lines have arrived."""
    have = server.arrived()
    server.wait_for("more lines", lambda: server.arrived() >= have + count)


def finish(server: Server, pid: int) -> None:
    """Check that the script has run under `pid` all the time, end it, and check that its lines are whole."""
    assert server.writer_pid() == pid
    server.run("orion", "script", "stop", server.writer)
    server.run("orion", "buffer", "flush")
    server.wait_for(
        "the buffer is empty", lambda: server.run("orion", "status", "--json").stdout.find('"entries":0') >= 0
    )
    check_whole(server)


def new_main_process(server: Server, act: Callable[[], object]) -> int:
    """Do something that costs the agent its life, and wait for the next one; return its pid."""
    before = server.main_pid(UNIT)
    assert before > 0
    act()
    server.wait_for("another main process", lambda: server.main_pid(UNIT) not in (0, before))
    server.wait_for("the agent answers", server.is_up)
    return server.main_pid(UNIT)


def test_a_heartbeat_arrives_from_a_freshly_installed_agent(server: Server) -> None:
    server.wait_for("a heartbeat", lambda: bool(server.heartbeats()))
    beat = server.heartbeats()[0]
    assert beat["agentVersion"] == "1.0.0"
    assert beat["memory"]["totalMb"] > 0
    assert server.run("orion", "version").stdout.startswith("orion-agent 1.0.0\nbuilt 20")


def test_an_agent_without_scripts_stays_small(server: Server) -> None:
    beats = len(server.heartbeats())
    server.wait_for("more heartbeats", lambda: len(server.heartbeats()) >= beats + 3)
    status = server.run("cat", f"/proc/{server.main_pid(UNIT)}/status").stdout
    found = re.search(r"^VmRSS:\s+(\d+) kB$", status, re.MULTILINE)
    assert found is not None
    assert int(found[1]) < RSS_LIMIT_KIB


def test_an_application_sees_nothing_of_what_the_unit_grants_the_agent(server: Server) -> None:
    pid = server.add_writer()
    names = {item.partition("=")[0] for item in server.run("cat", f"/proc/{pid}/environ").stdout.split("\0") if item}
    assert names == {"PATH", "HOME", "USER", "LOGNAME", "SHELL", "LANG", "ORION_SCRIPT", "ORION_SOCKET"}
    assert server.run("sh", "-c", f"echo /proc/{pid}/fd/*").stdout.split() == [f"/proc/{pid}/fd/{n}" for n in range(3)]
    status = dict(line.split(":\t", 1) for line in server.run("cat", f"/proc/{pid}/status").stdout.splitlines())
    ours = dict(line.split(":\t", 1) for line in Path("/proc/self/status").read_text().splitlines())
    assert (status["NoNewPrivs"], status["Seccomp"], status["Umask"]) == ("0", "0", "0022")
    # 32 and 33 are the C library's own: its posix_spawn leaves them ignored, and nobody can ask for them back.
    c_library = 0b11 << 31
    assert (int(status["SigBlk"], 16), int(status["SigIgn"], 16) & ~c_library) == (0, 0)
    assert status["CapBnd"] == ours["CapBnd"]
    limits = server.run("cat", f"/proc/{pid}/limits").stdout
    assert re.search(r"^Max open files +1024 ", limits, re.MULTILINE), limits
    assert server.run("cat", f"/proc/{pid}/oom_score_adj").stdout == "0\n"
    for kind in ("mnt", "net", "pid", "ipc", "uts"):
        assert (
            server.run("readlink", f"/proc/{pid}/ns/{kind}").stdout
            == server.run("readlink", f"/proc/1/ns/{kind}").stdout
        )


def test_kills_under_load_lose_no_line_and_leave_the_application_alone(server: Server) -> None:
    pid = server.add_writer()
    for _ in range(KILLS):
        write_more(server)
        main = server.main_pid(UNIT)
        new_main_process(server, lambda main=main: server.run("sh", "-c", f"kill -9 {main}"))  # type: ignore[misc]
        assert server.writer_pid() == pid
    write_more(server)
    finish(server, pid)


def test_a_hung_agent_is_ended_by_the_watchdog_and_taken_over(server: Server) -> None:
    drop_in = server.state / "etc/systemd/system/orion-agent.service.d"
    drop_in.mkdir()
    (drop_in / "watchdog.conf").write_text("[Service]\nWatchdogSec=2s\n")
    server.run("systemctl", "daemon-reload")
    main = server.main_pid(UNIT)
    new_main_process(server, lambda: server.run("sh", "-c", f"kill -9 {main}"))
    pid = server.add_writer()
    write_more(server)
    main = server.main_pid(UNIT)
    new_main_process(server, lambda: server.run("sh", "-c", f"kill -STOP {main}"))
    (drop_in / "watchdog.conf").unlink()
    drop_in.rmdir()
    server.run("systemctl", "daemon-reload")
    assert "Watchdog timeout" in server.journal(UNIT)
    write_more(server)
    finish(server, pid)


def test_a_reload_keeps_the_agent_and_its_applications(server: Server) -> None:
    pid, main = server.add_writer(), server.main_pid(UNIT)
    write_more(server)
    server.run("systemctl", "reload", UNIT)
    assert server.main_pid(UNIT) == main
    write_more(server)
    finish(server, pid)


def test_upgrades_keep_the_process_the_applications_and_every_line(server: Server) -> None:
    pid, main = server.add_writer(), server.main_pid(UNIT)
    for turn in range(UPGRADES):
        write_more(server)
        version = ("1.1.0", "1.0.0")[turn % 2]
        said = server.install("--version", version).stdout
        assert f"installed {version}" in said
        assert server.program() == f"/usr/local/lib/orion-agent/{version}/orion"
        assert server.main_pid(UNIT) == main
    write_more(server)
    finish(server, pid)


def test_a_version_that_does_not_start_is_taken_back(server: Server, releases: Path) -> None:
    pid, main, program = server.add_writer(), server.main_pid(UNIT), server.program()
    add_broken_daemon(releases, good="1.1.0", broken="1.9.0")
    done = server.install("--version", "1.9.0", check=False)
    assert done.returncode == 25, done.stdout
    assert "went back to" in done.stdout
    assert server.program() == program
    assert server.main_pid(UNIT) == main
    assert server.run("readlink", "/usr/local/lib/orion-agent/current").stdout.strip() in program
    left = server.run("ls", "/usr/local/lib/orion-agent").stdout.split()
    assert left == ["1.0.0", "1.1.0", "current", "previous"]
    assert server.run("readlink", "/usr/local/lib/orion-agent/previous").stdout.strip() not in program
    write_more(server)
    finish(server, pid)


def test_a_version_that_dies_after_the_handover_is_taken_back(server: Server, releases: Path) -> None:
    pid, program = server.add_writer(), server.program()
    write_more(server)
    add_broken_daemon(releases, good="1.1.0", broken="1.9.1", agent=compile_dying_agent())
    done = server.install("--version", "1.9.1", check=False, ORION_COME_UP_S="3")
    assert done.returncode == 25, done.stdout
    assert "went back to" in done.stdout
    server.wait_for("the agent answers", server.is_up)
    assert server.program() == program
    write_more(server)
    finish(server, pid)


def test_the_journal_has_what_a_person_needs(server: Server) -> None:
    said = server.journal(UNIT)
    assert re.search(r"orion agent 1\.\d\.0 runs as pid \d+", said)
    assert "Started orion-agent.service" in server.journal()
    assert "Traceback" not in said.split("Watchdog timeout")[0]


def test_stop_leaves_no_process(server: Server) -> None:
    pid = server.add_writer()
    # One that hides: of a session of its own, no longer its script's child, and deaf to SIGTERM.
    hide = """sh -c '(setsid sh -c "trap : TERM; while :; do sleep 1; done" &); exec sleep 1000'"""
    server.run("orion", "script", "add", "hider", hide, "--cwd", "/tmp", "--set", "stopTimeout=500")
    write_more(server)
    server.wait_for("all are there", lambda: any("trap" in line for line in server.agents_processes()))
    server.run("systemctl", "stop", UNIT)
    assert server.agents_processes() == []
    assert server.run("test", "-d", f"/proc/{pid}", check=False).returncode != 0
    check_whole(server)
    server.wait_for("the last heartbeat", lambda: server.heartbeats()[-1].get("stopping", False))
    server.run("systemctl", "start", UNIT)
    server.wait_for("the agent answers", server.is_up)
    server.remove_script("hider")


def test_after_a_boot_everything_runs_before_the_backend_does(releases: Path) -> None:
    with running(releases) as server:
        server.add_writer()
        write_more(server)
        server.halt()
        server.forget_lines()
        server.boot()
        server.wait_for("the script runs", lambda: server.is_up() and server.writer_pid() is not None)
        assert server.property(UNIT, "ActiveState") == "active"
        pid = server.writer_pid()
        server.start_backend()
        server.wait_for("lines of before the backend came", lambda: server.arrived() > 0)
        write_more(server)
        assert server.writer_pid() == pid


def test_purge_leaves_nothing(server: Server) -> None:
    server.install("--purge")
    left = server.run(
        "find", "/usr/local", "/etc/systemd/system", "/etc/orion", "/run/orion", "-iname", "*orion*", check=False
    ).stdout
    assert [line for line in left.splitlines() if not line.startswith("find:")] == []
    assert server.property(UNIT, "LoadState") == "not-found"
