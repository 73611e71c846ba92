"""What systemd itself makes of the unit file, and of the claims that its lines rest on."""

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.systemd.machine import Machine

pytestmark = pytest.mark.system

UNIT = Path(__file__).parents[2] / "init" / "orion-agent.service"

# A stand-in for the agent: ready, then asleep with one application in the background.
STAND_IN = """\
#!/bin/sh
case $1 in
reload) systemctl show -p MainPID orion-agent; exit 0 ;;
esac
[ -e /run/orion/app ] || { sleep 1000 & echo $! >/run/orion/app; }
systemd-notify --ready --status="standing in"
trap 'kill "$(cat /run/orion/app)"; exit 0' TERM
while :; do sleep 0.05; systemd-notify WATCHDOG=1; done
"""


@pytest.fixture
def installed(machine: Machine) -> Iterator[Machine]:
    """Yield the machine with our unit and the stand-in, started."""
    binary = machine.local / "bin" / "orion"
    binary.write_text(STAND_IN)
    binary.chmod(0o755)
    units = machine.state / "etc" / "systemd" / "system"
    (units / "orion-agent.service").write_bytes(UNIT.read_bytes())
    # A shell script cannot notify by itself: its systemd-notify is another process.
    drop_in = units / "orion-agent.service.d"
    drop_in.mkdir()
    (drop_in / "test.conf").write_text("[Service]\nNotifyAccess=all\n")
    machine.run("systemctl", "daemon-reload")
    machine.run("systemctl", "start", "orion-agent")
    yield machine
    machine.run("systemctl", "stop", "orion-agent")
    machine.run("systemctl", "reset-failed", check=False)
    for path in (drop_in / "test.conf", units / "orion-agent.service", binary):
        path.unlink()
    drop_in.rmdir()
    machine.run("systemctl", "daemon-reload")


def application(machine: Machine) -> int:
    return int(machine.run("cat", "/run/orion/app").stdout)


def is_alive(machine: Machine, pid: int) -> bool:
    return machine.run("test", "-d", f"/proc/{pid}", check=False).returncode == 0


def test_systemd_finds_no_fault_with_the_unit(installed: Machine) -> None:
    unit = "/etc/systemd/system/orion-agent.service"
    assert installed.run("systemd-analyze", "verify", "--man=no", unit).stdout == ""


def test_delegation_asks_for_no_controllers(installed: Machine) -> None:
    assert installed.property("orion-agent", "Delegate") == "yes"
    assert installed.property("orion-agent", "DelegateControllers") == ""


def test_a_killed_agent_comes_back_and_its_application_never_left(installed: Machine) -> None:
    app, first = application(installed), installed.main_pid("orion-agent")
    assert first > 0
    installed.run("sh", "-c", f"kill -9 {first}")
    installed.wait_for("a new main process", lambda: installed.main_pid("orion-agent") not in (0, first))
    assert is_alive(installed, app)
    assert application(installed) == app, "the runtime folder was emptied by the restart"


def test_a_stuck_agent_is_aborted_and_started_again(installed: Machine) -> None:
    drop_in = installed.state / "etc/systemd/system/orion-agent.service.d/watchdog.conf"
    drop_in.write_text("[Service]\nWatchdogSec=1s\n")
    installed.run("systemctl", "daemon-reload")
    installed.run("systemctl", "restart", "orion-agent")
    first = installed.main_pid("orion-agent")
    installed.run("sh", "-c", f"kill -STOP {first}")
    installed.wait_for("a new main process", lambda: installed.main_pid("orion-agent") not in (0, first))
    drop_in.unlink()
    assert "Watchdog timeout" in installed.journal("orion-agent")


def test_a_reload_runs_our_own_binary_and_keeps_the_main_process(installed: Machine) -> None:
    first = installed.main_pid("orion-agent")
    installed.run("systemctl", "reload", "orion-agent")
    assert installed.main_pid("orion-agent") == first
    assert f"MainPID={first}" in installed.journal("orion-agent")


def test_no_line_of_the_unit_confines_the_applications(installed: Machine) -> None:
    status = installed.run("cat", f"/proc/{application(installed)}/status").stdout
    fields = dict(line.split(":\t", 1) for line in status.splitlines())
    ours = dict(line.split(":\t", 1) for line in Path("/proc/self/status").read_text().splitlines())
    assert fields["NoNewPrivs"].strip() == "0"
    assert fields["Seccomp"].strip() == "0"
    assert int(fields["CapBnd"], 16) == int(ours["CapBnd"], 16)
    assert os.path.samefile(f"/proc/{installed.pid}/ns/mnt", _namespace(installed, "mnt"))


def _namespace(machine: Machine, kind: str) -> str:
    """Return the application's namespace, by the pid that the host knows it by."""
    inner = application(machine)
    for name in os.listdir("/proc"):
        if name.isdigit():
            try:
                lines = Path(f"/proc/{name}/status").read_text().splitlines()
            except OSError:
                continue
            pids = next((line.split()[1:] for line in lines if line.startswith("NSpid:")), [])
            same_tree = pids[-1:] == [str(inner)] and len(pids) > 1
            if same_tree and os.path.samefile(f"/proc/{name}/ns/pid", f"/proc/{machine.pid}/ns/pid"):
                return f"/proc/{name}/ns/{kind}"
    raise AssertionError(f"no process {inner} in the machine")
