"""Files are replaced whole or not at all, and never through what a stranger laid in their place."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from orionagent.errors import ConfigError
from orionagent.files import read_guarded, write_atomic

REWRITE = """
import itertools, sys
from orionagent.files import write_atomic
for number in itertools.count():
    write_atomic(sys.argv[1], (b"%d " % number) * 20000, sync=False)
    print(number, flush=True)
"""


def test_a_new_file_is_its_writers_alone_and_an_old_one_keeps_its_mode(root: Path) -> None:
    file = root / "f"
    write_atomic(str(file), b"one")
    assert file.stat().st_mode & 0o7777 == 0o600
    file.chmod(0o644)
    write_atomic(str(file), b"two", 0o600)
    assert file.read_bytes() == b"two"
    assert file.stat().st_mode & 0o7777 == 0o644
    assert os.listdir(root) == ["f"]


@pytest.mark.skipif(os.geteuid() != 0, reason="giving a file away needs root")
def test_an_old_file_keeps_its_owner_and_a_new_one_gets_the_one_asked_for(root: Path) -> None:
    write_atomic(str(root / "f"), b"one", owner=(65534, 65534))
    write_atomic(str(root / "f"), b"two")
    assert ((root / "f").stat().st_uid, (root / "f").stat().st_gid) == (65534, 65534)


def test_a_killed_writer_leaves_the_old_or_the_new_content_whole(root: Path) -> None:
    file = root / "f"
    with subprocess.Popen([sys.executable, "-c", REWRITE, str(file)], stdout=subprocess.PIPE) as writer:
        assert writer.stdout is not None
        for _ in range(20):
            writer.stdout.readline()
        writer.send_signal(signal.SIGKILL)
    words = file.read_bytes().split()
    assert len(words) == 20000
    assert len(set(words)) == 1


def test_a_write_that_fails_leaves_nothing_behind(root: Path) -> None:
    (root / "f").mkdir()
    with pytest.raises(OSError, match="directory"):
        write_atomic(str(root / "f"), b"x")
    assert os.listdir(root) == ["f"]
    with pytest.raises(FileNotFoundError):
        write_atomic(str(root / "none" / "f"), b"x")


def test_a_link_is_followed_or_replaced_as_asked(root: Path) -> None:
    (root / "target").write_bytes(b"old")
    os.symlink(root / "target", root / "link")
    write_atomic(str(root / "link"), b"through")
    assert (root / "target").read_bytes() == b"through"
    assert (root / "link").is_symlink()
    write_atomic(str(root / "link"), b"instead", follow=False)
    assert (root / "target").read_bytes() == b"through"
    assert (root / "link").read_bytes() == b"instead"
    assert not (root / "link").is_symlink()


def test_what_is_no_regular_file_is_refused_at_once(root: Path) -> None:
    os.mkfifo(root / "pipe")
    for path in (root / "pipe", root, Path("/dev/zero")):
        with pytest.raises(ConfigError, match="regular"):
            read_guarded(str(path))
    assert read_guarded(str(root / "none")) is None
    assert read_guarded(str(root / "none" / "deeper")) is None


def test_a_file_beyond_all_measure_is_refused(root: Path) -> None:
    with open(root / "f", "wb") as file:
        file.truncate(17 << 20)
    with pytest.raises(ConfigError, match="shorten"):
        read_guarded(str(root / "f"))
