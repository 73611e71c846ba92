"""The release on minimal Debian trees without Python, older and newer than the one it was built on."""

import os
import shutil
import socket
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.packaging.releases import add_broken_daemon, offer

# A tree takes debootstrap, Debian's mirror and one or two minutes.
pytestmark = [
    pytest.mark.soak,
    pytest.mark.skipif(shutil.which("debootstrap") is None, reason="debootstrap is not installed"),
]

HERE = Path(__file__).parent
INSTALLER = HERE.parents[1] / "init" / "install.sh"
MIRROR = "http://deb.debian.org/debian"


@pytest.fixture(scope="module")
def site(build: Callable[[str], Path]) -> Iterator[str]:
    """Yield the address of a download site with two good versions and one whose daemon does not start."""
    with tempfile.TemporaryDirectory(prefix="or-site-", dir="/tmp") as name:
        offer(Path(name), build("1.0.0"), build("1.1.0"))
        add_broken_daemon(Path(name), good="1.1.0", broken="1.9.0")
        command = [sys.executable, str(HERE / "serve.py"), name]
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as server:
            assert server.stdout is not None
            yield server.stdout.readline().strip()
            server.kill()


@pytest.fixture(params=["bullseye", "bookworm", "trixie"])
def tree(request: pytest.FixtureRequest) -> Iterator[Path]:
    """Yield a minimal tree of a Debian release, with curl, a person who may use sudo, and without Python."""
    with tempfile.TemporaryDirectory(prefix="or-tree-", dir="/tmp") as name:
        os.chmod(name, 0o755)  # it becomes everybody's root folder
        packages = "--include=curl,ca-certificates,sudo"
        command = ["debootstrap", "--variant=minbase", packages, request.param, name, MIRROR]
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
        assert not (Path(name) / "usr/bin/python3").exists()
        subprocess.run(["chroot", name, "useradd", "--create-home", "person"], check=True)
        (Path(name) / "etc/hosts").write_text(f"127.0.0.1 localhost {socket.gethostname()}\n")
        (Path(name) / "etc/sudoers.d/person").write_text("person ALL = NOPASSWD: ALL\nDefaults !use_pty\n")
        yield Path(name)


def test_a_person_installs_uses_upgrades_and_removes_it(tree: Path, site: str) -> None:
    for path in (INSTALLER, HERE / "tree_scenario.sh"):
        shutil.copy(path, tree / "tmp")
    # With a mount table and processes of its own, all of which end with the shell.
    enter = (
        'mount -t proc proc "$1/proc" && exec chroot "$1" env -i "PATH=$PATH" "ORION_BASE_URL=$2" '
        "timeout 120 sh -x /tmp/tree_scenario.sh /tmp/install.sh"
    )
    done = subprocess.run(
        ["unshare", "--mount", "--pid", "--fork", "--kill-child", "sh", "-c", enter, "sh", str(tree), site],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=180,
        check=False,
    )
    said = done.stdout
    assert done.returncode == 0, said
    for found in (
        "there is no systemd here",
        "orion-agent 1.0.0\nbuilt 20",
        "the console has heard: ",
        "handing over to the new version",
        "1.9.0 does not come up; going back to 1.1.0",
        "the broken version ended with 25",
        "went back to 1.0.0",
        "the application ran as ",
        "removing a running agent ended with 26",
        "the daemon ended well",
        "nothing is left",
    ):
        assert found in said, f"not found: {found}\n{said}"
