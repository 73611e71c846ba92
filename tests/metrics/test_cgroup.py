"""What a container may use, on trees like those below /sys/fs/cgroup."""

from pathlib import Path

from orionagent.metrics.cgroup import Container, Limits, Usage


def write(root: Path, files: dict[str, str]) -> Container:
    for name, text in files.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(text)
    return Container(str(root))


def test_a_v2_container_has_the_limits_at_its_top(root: Path) -> None:
    container = write(
        root,
        {
            "memory.max": "536870912\n",
            "cpu.max": "150000 100000\n",
            "memory.current": "300000000\n",
            "memory.stat": "anon 1\ninactive_file 100000000\n",
            "cpu.stat": "usage_usec 2500000\nuser_usec 1\n",
        },
    )
    assert container.limits() == Limits(536870912, 1.5)
    assert container.usage() == Usage(200000000, 2.5)


def test_a_v1_container_has_the_limits_at_its_controllers_tops(root: Path) -> None:
    container = write(
        root,
        {
            "memory/memory.limit_in_bytes": "536870912\n",
            "memory/memory.usage_in_bytes": "300000000\n",
            "memory/memory.stat": "inactive_file 5\ntotal_inactive_file 100000000\n",
            "cpu/cpu.cfs_quota_us": "50000\n",
            "cpu/cpu.cfs_period_us": "100000\n",
            "cpuacct/cpuacct.usage": "2500000000\n",
        },
    )
    assert container.limits() == Limits(536870912, 0.5)
    assert container.usage() == Usage(200000000, 2.5)


def test_one_limit_suffices(root: Path) -> None:
    container = write(root, {"memory.max": "max\n", "cpu.max": "100000 100000\n"})
    assert container.limits() == Limits(None, 1.0)
    assert container.usage() == Usage(None, None)


def test_a_v2_host_has_no_limits_whatever_its_services_have(root: Path) -> None:
    container = write(
        root,
        {"cpu.stat": "usage_usec 1\n", "system.slice/orion-agent.service/memory.max": "100000000\n"},
    )
    assert container.limits() is None


def test_a_v1_host_writes_no_limit_as_a_huge_number(root: Path) -> None:
    container = write(
        root,
        {
            "memory/memory.limit_in_bytes": "9223372036854771712\n",
            "cpu/cpu.cfs_quota_us": "-1\n",
            "cpu/cpu.cfs_period_us": "100000\n",
        },
    )
    assert container.limits() is None


def test_nonsense_and_absence_are_no_limits(root: Path) -> None:
    assert Container(str(root / "none")).limits() is None
    assert write(root, {"memory.max": "soon\n", "cpu.max": "x y\n"}).limits() is None
