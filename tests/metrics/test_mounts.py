"""Which lines of a mount table are disks."""

from hypothesis import given
from hypothesis import strategies as st

from orionagent.metrics.mounts import Filesystem, real_filesystems


def table(*lines: tuple[str, str, str, str, str]) -> str:
    """Build a mount table from (device number, root, path, type, source)."""
    return "".join(
        f"{number} 1 {device} {root} {path} rw,relatime shared:1 - {fstype} {source} rw\n"
        for number, (device, root, path, fstype, source) in enumerate(lines, 20)
    )


def paths(text: str) -> list[str]:
    return [found.path for found in real_filesystems(text)]


ROOT = ("8:1", "/", "/", "ext4", "/dev/sda1")


def test_a_plain_server_has_its_partitions_and_nothing_of_the_kernel() -> None:
    text = table(
        ("0:21", "/", "/proc", "proc", "proc"),
        ROOT,
        ("0:5", "/", "/dev", "devtmpfs", "udev"),
        ("0:23", "/", "/run", "tmpfs", "tmpfs"),
        ("8:2", "/", "/boot/efi", "vfat", "/dev/sda2"),
        ("8:17", "/", "/srv", "xfs", "/dev/sdb1"),
    )
    assert real_filesystems(text) == (
        Filesystem("/", "/dev/sda1", "ext4", "8:1"),
        Filesystem("/boot/efi", "/dev/sda2", "vfat", "8:2"),
        Filesystem("/srv", "/dev/sdb1", "xfs", "8:17"),
    )


def test_bind_mounts_and_second_mounts_of_a_device_count_once() -> None:
    text = table(("8:1", "/home/x", "/a", "ext4", "/dev/sda1"), ROOT, ("8:1", "/", "/mnt", "ext4", "/dev/sda1"))
    assert paths(text) == ["/"]


def test_a_device_seen_only_through_a_bind_mount_counts() -> None:
    assert paths(table(("8:1", "/ostree/deploy/x", "/", "ext4", "/dev/sda1"))) == ["/"]


def test_subvolumes_of_one_btrfs_count_once_and_by_the_shortest_path() -> None:
    text = table(("0:30", "/@home", "/home", "btrfs", "/dev/sda1"), ("0:30", "/@", "/", "btrfs", "/dev/sda1"))
    assert paths(text) == ["/"]


def test_datasets_of_a_pool_are_apart_but_name_their_pool() -> None:
    text = table(("0:40", "/", "/", "zfs", "rpool/ROOT"), ("0:41", "/", "/home", "zfs", "rpool/home"))
    assert [(found.path, found.pool) for found in real_filesystems(text)] == [
        ("/", "rpool"),
        ("/home", "rpool"),
    ]


def test_images_memory_and_networks_are_left_out() -> None:
    text = table(
        ROOT,
        ("7:1", "/", "/snap/core", "squashfs", "/dev/loop1"),
        ("11:0", "/", "/media/cd", "iso9660", "/dev/sr0"),
        ("0:50", "/", "/mnt/nfs", "nfs4", "server:/x"),
        ("0:51", "/", "/mnt/cifs", "cifs", "//server/x"),
        ("0:52", "/", "/mnt/ssh", "fuse.sshfs", "me@server:/"),
        ("0:53", "/", "/var/lib/docker/overlay2/x/merged", "overlay", "overlay"),
    )
    assert paths(text) == ["/"]


def test_a_containers_overlay_root_counts() -> None:
    text = table(("0:60", "/", "/", "overlay", "overlay"), ("8:1", "/d/hosts", "/etc/hosts", "ext4", "/dev/sda1"))
    assert paths(text) == ["/", "/etc/hosts"]  # the size tells that the second is the first: see disk


def test_a_mount_over_another_hides_it() -> None:
    text = table(("8:17", "/", "/srv", "xfs", "/dev/sdb1"), ("0:9", "/", "/srv", "tmpfs", "tmpfs"))
    assert paths(text) == []


def test_blanks_in_a_path_are_read() -> None:
    assert paths(table(("8:17", "/", "/mnt/my\\040disk\\134", "xfs", "/dev/sdb1"))) == ["/mnt/my disk\\"]


@given(st.text(max_size=300))
def test_no_text_breaks_the_reader(text: str) -> None:
    real_filesystems(text)
