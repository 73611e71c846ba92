"""Owns the choice of filesystems that count as the machine's disks, from the text of /proc/self/mountinfo.

Pure: it opens nothing and asks no filesystem anything; a hung mount cannot reach it.
"""

from collections.abc import Mapping
from typing import NamedTuple

# Filesystems that keep data on this machine's own devices. Images that are full by nature (squashfs, iso9660,
# erofs), memory (tmpfs), and everything across a network are left out on purpose.
LOCAL_TYPES = frozenset(
    (
        *("bcachefs", "btrfs", "exfat", "ext2", "ext3", "ext4", "f2fs", "fuseblk", "hfsplus", "jffs2"),
        *("jfs", "msdos", "nilfs2", "ntfs", "ntfs3", "reiserfs", "ubifs", "ufs", "vfat", "xfs", "zfs"),
    )
)
# As the root of a container (overlay, or what its sandbox shows instead) these are its disk.
ROOT_TYPES = frozenset(("9p", "aufs", "fuse.fuse-overlayfs", "overlay", "virtiofs"))


class Filesystem(NamedTuple):
    """One distinct filesystem; `pool` is what it shares its free space with (a ZFS pool), else its own."""

    path: str
    device: str
    fstype: str
    pool: str


class _Line(NamedTuple):
    device_number: str
    root: str
    path: str
    fstype: str
    source: str


def real_filesystems(mountinfo: str) -> tuple[Filesystem, ...]:
    """Return the distinct local filesystems of a mount table (proc_pid_mountinfo(5)), sorted by path.

    One per device number: bind mounts and further mounts of one device are the same filesystem. Of several
    mounts that one is taken which shows the filesystem's root, then the one with the shortest path.
    """
    visible: dict[str, _Line] = {}
    for text in mountinfo.splitlines():
        line = _parse(text)
        if line is not None:
            visible[line.path] = line  # a later mount on the same folder hides the earlier one
    return tuple(sorted(_distinct(visible).values()))


def _distinct(visible: Mapping[str, _Line]) -> dict[str, Filesystem]:
    chosen: dict[str, Filesystem] = {}
    for line in sorted(visible.values(), key=lambda line: (line.root != "/", len(line.path), line.path)):
        if line.fstype in LOCAL_TYPES or (line.path == "/" and line.fstype in ROOT_TYPES):
            pool = line.source.split("/")[0] if line.fstype == "zfs" else line.device_number
            found = Filesystem(line.path, line.source, line.fstype, pool)
            chosen.setdefault(line.device_number, found)
    return chosen


def _parse(text: str) -> _Line | None:
    head, separator, tail = text.partition(" - ")
    fields, rest = head.split(" "), tail.split(" ")
    if not separator or len(fields) < 6 or len(rest) < 2:
        return None
    return _Line(fields[2], fields[3], _unescape(fields[4]), rest[0], _unescape(rest[1]))


def _unescape(text: str) -> str:
    # The kernel writes blank, tab, newline and backslash as three octal digits.
    if "\\" not in text:
        return text
    for code, character in (("\\040", " "), ("\\011", "\t"), ("\\012", "\n"), ("\\134", "\\")):
        text = text.replace(code, character)
    return text
