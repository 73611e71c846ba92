"""Which interfaces count, on trees like those below /sys/class/net."""

from pathlib import Path

from orionagent.metrics.interfaces import physical_interfaces


def add(
    folder: Path,
    name: str,
    *,
    device: bool = False,
    master: str | None = None,
    kind: str | None = None,
    index: int = 2,
    peer: int | None = None,
    hardware: int = 1,
) -> None:
    """Add one interface; `peer` is the index of its other end, where that lies elsewhere."""
    own = folder / name
    own.mkdir(parents=True)
    (own / "type").write_text(f"{hardware}\n")
    (own / "ifindex").write_text(f"{index}\n")
    (own / "iflink").write_text(f"{index if peer is None else peer}\n")
    (own / "uevent").write_text((f"DEVTYPE={kind}\n" if kind else "") + f"INTERFACE={name}\n")
    if kind == "bridge":
        (own / "bridge").mkdir()
    if device:
        (own / "device").symlink_to("..")
    if master:
        (own / "master").symlink_to(f"../{master}")


def test_a_docker_host_counts_its_card_only(root: Path) -> None:
    add(root, "lo", hardware=772)
    add(root, "enp3s0", device=True)
    add(root, "wlan0", device=True, kind="wlan")
    add(root, "docker0", kind="bridge")
    add(root, "veth1a2b", master="docker0", peer=7)
    add(root, "tun0", hardware=65534)
    add(root, "wg0", kind="wireguard", hardware=65534)
    add(root, "enp3s0.10", kind="vlan", peer=2)
    assert physical_interfaces(str(root)) == {"enp3s0", "wlan0"}


def test_the_ports_of_a_bond_count_and_the_bond_does_not(root: Path) -> None:
    add(root, "bond0", kind="bond")
    add(root, "eth0", device=True, master="bond0")
    add(root, "eth1", device=True, master="bond0")
    assert physical_interfaces(str(root)) == {"eth0", "eth1"}


def test_an_accelerated_function_below_its_synthetic_device_counts_once(root: Path) -> None:
    add(root, "eth0", device=True)
    add(root, "enP1s1", device=True, master="eth0")
    assert physical_interfaces(str(root)) == {"eth0"}


def test_a_container_counts_what_leads_out_of_it(root: Path) -> None:
    add(root, "lo", hardware=772)
    add(root, "eth0", index=5, peer=9)
    add(root, "docker0", kind="bridge", index=6)
    add(root, "veth77", master="docker0", index=7, peer=8)
    add(root, "dummy0", index=10)
    add(root, "eth0.5", kind="vlan", index=11, peer=5)
    assert physical_interfaces(str(root)) == {"eth0"}


def test_an_openvz_container_counts_its_venet(root: Path) -> None:
    add(root, "lo", hardware=772)
    add(root, "venet0", hardware=65535)
    assert physical_interfaces(str(root)) == {"venet0"}


def test_no_sys_at_all_counts_nothing(root: Path) -> None:
    assert physical_interfaces(str(root / "none")) == frozenset()
