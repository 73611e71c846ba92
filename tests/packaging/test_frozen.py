"""The packaged program, in a tree that has nothing but the C library."""

import re
import shutil
import subprocess
import tarfile
from collections.abc import Iterator
from pathlib import Path

import pexpect
import pytest

from tests.packaging.releases import byte_code
from tests.test_architecture import imported_names, module_name, module_paths

pytestmark = pytest.mark.system

CHROOT = shutil.which("chroot") or "/usr/sbin/chroot"


@pytest.fixture(scope="module")
def bare(release: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Yield a root with the unpacked release in /opt/orion and the libraries that it asks the system for."""
    root = tmp_path_factory.mktemp("bare")
    with tarfile.open(release) as archive:
        archive.extractall(root / "opt", filter="tar")
    (root / "opt" / "orion-agent-1.0.0").rename(root / "opt" / "orion")
    for path in [root / "opt/orion/orion", *(root / "opt/orion/lib").rglob("*.so*")]:
        needed = subprocess.run(["ldd", path], capture_output=True, text=True, check=False).stdout
        for library in re.findall(r"(/\S+) \(0x", needed):
            target = root / library.lstrip("/")
            if not target.exists() and not library.startswith(str(root)):
                target.parent.mkdir(parents=True, exist_ok=True)
                shutil.copy(library, target)
    yield root
    shutil.rmtree(root)


def run(root: Path, *arguments: str, **environment: str) -> "subprocess.CompletedProcess[str]":
    """Run the program with `root` as the whole world and with no environment but `environment`."""
    return subprocess.run(
        [CHROOT, root, "/opt/orion/orion", *arguments],
        env=environment,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def test_it_asks_for_no_library_that_a_minimal_debian_lacks(bare: Path) -> None:
    found = {path.name.split(".so")[0] for path in bare.rglob("*") if path.is_file() and "opt" not in path.parts}
    c_library = {"libc", "libm", "libdl", "libpthread", "librt", "libutil", "ld-linux-x86-64", "ld-linux-aarch64"}
    # dpkg needs zlib and apt the C++ runtime, so both are on the smallest system there is.
    assert found <= c_library | {"libz", "libstdc++", "libgcc_s"}


def test_it_runs_without_python_and_says_how_it_was_built(bare: Path) -> None:
    done = run(bare, "version")
    assert done.returncode == 0, done.stderr
    first, second = done.stdout.splitlines()
    assert first == "orion-agent 1.0.0"
    assert second.startswith("built 20")
    assert "CPython 3." in second


def test_the_grammar_explains_itself(bare: Path) -> None:
    done = run(bare, "--help")
    assert (done.returncode, "Usage:" in done.stdout) == (0, True), done.stderr


def test_a_missing_daemon_is_said_in_one_line(bare: Path) -> None:
    done = run(bare, "ping")
    assert done.returncode == 3
    assert "the daemon is not running" in done.stderr


def test_the_daemon_starts_in_silence(bare: Path) -> None:
    # What is left out of the release on purpose makes no library complain.
    done = run(bare, "daemon", "--foreground", ORION_SELF_TEST="1")
    assert (done.returncode, done.stdout, done.stderr) == (0, "1.0.0\n", "")


def test_text_of_any_language_is_written_in_utf8_whatever_the_locale(bare: Path) -> None:
    done = run(bare, "log", "info", "größer als 10 €")
    assert done.returncode == 3
    assert "UnicodeEncodeError" not in done.stderr


def test_every_import_of_every_module_is_there(bare: Path, root: Path) -> None:
    # Also those inside functions, which nothing else here may call. Only names that the agent itself has: what is
    # optional to a library is its own business.
    names = {module_name(path).replace("/", ".") for path in module_paths()}
    wanted = {f"orionagent.{name}" for name in names}
    for path in module_paths():
        wanted |= {name.partition(".")[0] for name in imported_names(path)}
    # The same tree with another main script: there is no interpreter in it that one could ask.
    probe = root / "probe"
    shutil.copytree(bare / "opt/orion", probe)
    program = f"for name in {sorted(wanted)}: __import__(name)\nprint('all there')"
    (probe / "lib" / "__main__orion.pyc").write_bytes(byte_code(program, "probe"))
    done = subprocess.run([probe / "orion", "probe"], env={}, capture_output=True, text=True, check=False)
    assert done.stdout == "all there\n", done.stderr


def test_the_set_up_can_ask_with_arrow_keys(release: Path, bare: Path, root: Path) -> None:
    child = pexpect.spawn(
        str(bare / "opt/orion/orion"),
        ["setup", "--server", "--no-browser", "--api-url=http://127.0.0.1:1"],
        env={"ORION_ROOT": str(root), "TERM": "xterm", "PATH": "/usr/bin:/bin"},
        timeout=30,
        encoding="utf-8",
    )
    child.expect("Use arrow keys")
    child.close(force=True)


def test_it_stays_within_its_size_and_its_glibc(release: Path, bare: Path) -> None:
    unpacked = sum(path.lstat().st_size for path in (bare / "opt").rglob("*"))
    assert unpacked < 45_000_000
    assert release.stat().st_size < 16_000_000
    newest = (0, 0)
    for path in (bare / "opt").rglob("*"):
        if path.is_file():
            for minor in re.findall(rb"GLIBC_2\.(\d+)\0", path.read_bytes()):
                newest = max(newest, (2, int(minor)))
    installer = (Path(__file__).parents[2] / "init" / "install.sh").read_text()
    assert f"MIN_GLIBC_MINOR={newest[1]}\n" in installer, f"the builds need glibc {newest}"
    operators = (Path(__file__).parents[2] / "docs" / "operators.md").read_text()
    assert f"glibc 2.{newest[1]} or newer" in operators


def test_the_tarball_is_owned_by_root_and_stays_inside_its_folder(release: Path) -> None:
    with tarfile.open(release) as archive:
        for member in archive:
            assert (member.uid, member.gid) == (0, 0)
            assert member.name.split("/")[0] == "orion-agent-1.0.0"
            assert not member.mode & 0o022, member.name
