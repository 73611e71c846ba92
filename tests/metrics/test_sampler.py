"""Whole samples: rates between two of them, absence, the container's figures."""

from pathlib import Path

import pytest

from orionagent.metrics.cgroup import Container
from orionagent.metrics.rates import CpuTimes, Traffic
from orionagent.metrics.sampler import Sampler, read_cpu_times, read_traffic


class Machine:
    """Counters and a clock that the test turns by hand, behind the sampler's seams."""

    def __init__(self, root: Path) -> None:
        self.now_s = 1000.0
        self.cpu = CpuTimes(100.0, 900.0, 0.0)
        self.traffic = {"eth0": Traffic(0, 0), "lo": Traffic(0, 0)}
        (root / "net" / "eth0").mkdir(parents=True)
        (root / "net" / "eth0" / "device").symlink_to("..")
        (root / "uptime").write_text("4711.08 9000.00\n")
        (root / "loadavg").write_text("0.50 0.40 0.30 1/99 1234\n")
        self.cgroup = root / "cgroup"
        self.cgroup.mkdir()
        self.sampler = Sampler(
            container=Container(str(self.cgroup)),
            clock=lambda: self.now_s,
            cpu_times=lambda: self.cpu,
            traffic=lambda: dict(self.traffic),
            interfaces=str(root / "net"),
            uptime=str(root / "uptime"),
            loadavg=str(root / "loadavg"),
        )

    def pass_time(self, seconds: float, *, busy: float = 0.0, steal: float = 0.0, received: int = 0) -> None:
        self.now_s += seconds
        cpu = self.cpu
        self.cpu = CpuTimes(cpu.busy + busy, cpu.idle + seconds - busy - steal, cpu.steal + steal)
        before = self.traffic["eth0"]
        self.traffic = {"eth0": Traffic(before.received + received, before.sent), "lo": Traffic(10**9, 10**9)}


@pytest.fixture
def machine(root: Path) -> Machine:
    return Machine(root)


def test_the_first_sample_has_no_rates_and_no_zeros_in_their_place(machine: Machine) -> None:
    sample = machine.sampler.sample()
    assert sample.cpu is not None
    assert sample.cpu.percent is None
    assert sample.cpu.stealPercent is None
    assert sample.network is None
    assert sample.uptimeSeconds == 4711.08
    assert sample.cpu.load1 == 0.5


def test_rates_are_those_since_the_previous_sample(machine: Machine) -> None:
    machine.sampler.sample()
    machine.pass_time(30, busy=6, steal=3, received=3000)
    sample = machine.sampler.sample()
    assert sample.cpu is not None
    assert sample.network is not None
    assert (sample.cpu.percent, sample.cpu.stealPercent) == (20.0, 10.0)
    assert (sample.network.rxBytesPerSecond, sample.network.txBytesPerSecond) == (100.0, 0.0)


def test_a_look_is_recent_and_leaves_the_samples_interval_alone(machine: Machine) -> None:
    machine.sampler.sample()
    machine.pass_time(20, busy=20)
    machine.sampler.look()
    machine.pass_time(2)
    look = machine.sampler.look()
    machine.pass_time(18)
    sample = machine.sampler.sample()
    assert look.cpu is not None
    assert sample.cpu is not None
    assert (look.cpu.percent, sample.cpu.percent) == (0.0, 50.0)


def test_two_looks_at_once_show_the_same_window(machine: Machine) -> None:
    machine.sampler.sample()
    machine.pass_time(10, busy=5)
    looks = [machine.sampler.look(), machine.sampler.look()]
    assert [look.cpu.percent if look.cpu else None for look in looks] == [50.0, 50.0]


def test_counters_that_went_backwards_are_absent_for_one_sample(machine: Machine) -> None:
    machine.sampler.sample()
    machine.now_s += 30
    machine.cpu = CpuTimes(1.0, 1.0, 0.0)
    machine.traffic = {"eth0": Traffic(-1, 0)}
    sample = machine.sampler.sample()
    assert sample.cpu is not None
    assert sample.cpu.percent is None
    assert sample.network is None
    machine.pass_time(30, busy=15)
    sample = machine.sampler.sample()
    assert sample.cpu is not None
    assert sample.cpu.percent == 50.0


def test_unreadable_counters_are_absent_and_the_rest_is_there(root: Path) -> None:
    def refuse() -> CpuTimes:
        raise PermissionError(13, "hidden")

    sampler = Sampler(cpu_times=refuse, interfaces=str(root / "none"), uptime=str(root / "none"))
    sampler.sample()
    sample = sampler.sample()
    assert sample.cpu is not None
    assert sample.cpu.percent is None
    assert sample.network is None
    assert sample.uptimeSeconds is None
    assert sample.memory is not None


def test_inside_a_limit_memory_and_cpu_are_the_containers(machine: Machine) -> None:
    def write(name: str, text: str) -> None:
        (machine.cgroup / name).write_text(text)

    write("memory.max", str(256 << 20))
    write("memory.current", str(128 << 20))
    write("memory.stat", f"inactive_file {64 << 20}\n")
    write("cpu.max", "50000 100000")
    write("cpu.stat", "usage_usec 1000000\n")
    machine.sampler.sample()
    machine.pass_time(10, busy=10)
    write("cpu.stat", "usage_usec 3000000\n")
    sample = machine.sampler.sample()
    assert sample.scope == "container"
    assert sample.cpu is not None
    assert (sample.cpu.percent, sample.cpu.count) == (40.0, 0.5)
    assert sample.cpu.load1 is None
    assert sample.memory is not None
    assert (sample.memory.usedMb, sample.memory.totalMb, sample.memory.percent) == (64.0, 256.0, 25.0)


def test_memory_in_use_is_what_is_not_available() -> None:
    memory = Sampler().sample().memory
    assert memory is not None
    assert memory.usedMb is not None
    assert memory.totalMb is not None
    figures = {}
    with open("/proc/meminfo", encoding="ascii") as file:
        for line in file:
            key, value = line.split()[:2]
            figures[key.rstrip(":")] = int(value) / 1024
    assert memory.totalMb == pytest.approx(figures["MemTotal"], abs=0.1)
    assert memory.usedMb == pytest.approx(figures["MemTotal"] - figures["MemAvailable"], rel=0.3)


def test_the_machines_own_counters_are_readable() -> None:
    assert read_cpu_times().idle > 0
    assert "lo" in read_traffic()
