"""The installer against a real HTTP server, into a scratch root, through a pipe as people run it."""

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.packaging.releases import ARCH, BROKEN, add_release, tarball_name, write_checksums

INSTALLER = Path(__file__).parents[2] / "init" / "install.sh"
SERVE = Path(__file__).with_name("serve.py")
TIMEOUT_S = 60.0

pytestmark = pytest.mark.skipif(ARCH == "other", reason="there are no builds for this architecture")


class Site:
    """A download site, a scratch root, and the installer between them."""

    def __init__(self, folder: Path, address: str) -> None:
        self.releases = folder / "releases"
        self.root = folder / "root"
        self.address = address
        self.lib = self.root / "usr/local/lib/orion-agent"
        self.binary = self.root / "usr/local/bin/orion"
        self.unit = self.root / "etc/systemd/system/orion-agent.service"

    def run(
        self,
        *arguments: str,
        before: tuple[str, ...] = (),
        shell: tuple[str, ...] = ("sh",),
        script: bytes | None = None,
        **environment: str,
    ) -> "subprocess.CompletedProcess[str]":
        """Pipe the installer (or `script`) into a shell; `before` is a command that runs the shell."""
        own = {
            "PATH": os.environ["PATH"],
            "ORION_BASE_URL": self.address,
            "ORION_INSTALL_ROOT": str(self.root),
        }
        done = subprocess.run(
            [*before, *shell, "-s", "--", *arguments],
            input=INSTALLER.read_bytes() if script is None else script,
            env=own | environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            timeout=TIMEOUT_S,
            check=False,
        )
        return subprocess.CompletedProcess(done.args, done.returncode, done.stdout.decode())

    def install(self, *arguments: str) -> None:
        """Install, and expect that to work."""
        done = self.run(*arguments)
        assert done.returncode == 0, done.stdout

    def version(self) -> str:
        """Ask the installed program, by the path that people use."""
        return subprocess.run([self.binary, "version"], capture_output=True, text=True, check=True).stdout.strip()

    def files(self) -> dict[str, str]:
        """Return everything below the root: path to link target, content or kind."""
        return {
            str(path.relative_to(self.root)): os.readlink(path)
            if path.is_symlink()
            else (path.read_text() if path.is_file() else "folder")
            for path in sorted(self.root.rglob("*"))
        }


@pytest.fixture
def site(root: Path) -> Iterator[Site]:
    (root / "releases").mkdir()
    (root / "root" / "usr" / "local" / "lib").mkdir(parents=True)
    command = [sys.executable, str(SERVE), str(root / "releases")]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as server:
        assert server.stdout is not None
        yield Site(root, server.stdout.readline().strip())
        server.kill()


def test_the_newest_release_is_installed_and_found_on_the_path(site: Site) -> None:
    for version in ("1.9.0", "1.10.0", "1.2.0", "2.0.0-rc1"):
        add_release(site.releases, version)
    site.install()
    assert site.version() == "orion 1.10.0"
    assert os.readlink(site.lib / "current") == "1.10.0"
    assert os.readlink(site.binary) == "../lib/orion-agent/current/orion"
    assert site.unit.read_text() == "# unit of 1.10.0\n"
    assert site.unit.stat().st_mode & 0o777 == 0o644
    assert (site.root / "usr/local/share/man/man1/orion.1").read_text() == ".TH ORION 1\n"
    assert not (site.root / "usr/local/share/zsh").exists(), "this release brings no zsh completion"


@pytest.mark.parametrize("shell", ["dash", "bash", "bash --posix", "busybox sh", "ksh", "zsh --emulate sh"])
def test_every_shell_installs_upgrades_goes_back_and_removes(site: Site, shell: str) -> None:
    words = shell.split()
    if shutil.which(words[0]) is None:
        pytest.skip(f"there is no {words[0]} here")
    before = site.files()
    for version in ("1.0.0", "1.1.0"):
        add_release(site.releases, version)
    for arguments, version in ((["--version", "1.0.0"], "1.0.0"), ([], "1.1.0"), (["--rollback"], "1.0.0")):
        done = site.run(*arguments, shell=tuple(words))
        assert done.returncode == 0, done.stdout
        assert site.version() == f"orion {version}"
    done = site.run("--purge", shell=tuple(words))
    assert done.returncode == 0, done.stdout
    assert site.files() == before


def test_a_version_can_be_named(site: Site) -> None:
    for version in ("1.0.0", "2.0.0-rc1"):
        add_release(site.releases, version)
    site.install("--version", "2.0.0-rc1")
    assert site.version() == "orion 2.0.0-rc1"


def test_an_upgrade_keeps_the_version_before_and_no_older_one(site: Site) -> None:
    for version in ("1.0.0", "1.1.0", "1.2.0"):
        add_release(site.releases, version)
        site.install("--version", version)
    assert site.version() == "orion 1.2.0"
    assert sorted(path.name for path in site.lib.iterdir() if not path.name.startswith(".")) == [
        "1.1.0",
        "1.2.0",
        "current",
        "previous",
    ]


def test_rollback_goes_back_and_forth(site: Site) -> None:
    for version in ("1.0.0", "1.1.0"):
        add_release(site.releases, version)
        site.install("--version", version)
    site.install("--rollback")
    assert site.version() == "orion 1.0.0"
    assert site.unit.read_text() == "# unit of 1.0.0\n"
    site.install("--rollback")
    assert site.version() == "orion 1.1.0"


KILLED_AFTER = 'self=$(command -p -v mv); "$self" "$@"; case "$*" in *{name}) kill -9 "$PPID" ;; esac'
CUTS = {
    "killed after the switch": {"mv": KILLED_AFTER.format(name="/current")},
    "killed after the unit": {"mv": KILLED_AFTER.format(name="/orion-agent.service")},
    "no space for the unit": {"cp": "echo 'cp: No space left on device' >&2; exit 1"},
}


@pytest.mark.parametrize("cut", CUTS)
def test_an_upgrade_that_was_cut_short_is_brought_to_its_end_by_the_next_run(site: Site, root: Path, cut: str) -> None:
    add_release(site.releases, "1.0.0")
    site.install()
    add_release(site.releases, "1.1.0")
    done = site.run(PATH=saying(root, **CUTS[cut]), TMPDIR=str(root))
    assert done.returncode == (23 if "no space" in cut else -9), done.stdout
    assert os.readlink(site.lib / "current") == "1.1.0"
    done = site.run()
    assert done.returncode == 0, done.stdout
    assert "by hand" not in done.stdout
    assert site.unit.read_text() == "# unit of 1.1.0\n"
    assert not (site.lib / ".from").is_symlink()
    site.install("--rollback")
    assert (site.version(), site.unit.read_text()) == ("orion 1.0.0", "# unit of 1.0.0\n")


@pytest.mark.parametrize("cut", CUTS)
def test_an_upgrade_that_was_cut_short_can_be_undone_and_overtaken(site: Site, root: Path, cut: str) -> None:
    add_release(site.releases, "1.0.0")
    site.install()
    programs = saying(root, **CUTS[cut])
    add_release(site.releases, "1.1.0")
    site.run(PATH=programs, TMPDIR=str(root))
    site.install("--rollback")
    assert (site.version(), site.unit.read_text()) == ("orion 1.0.0", "# unit of 1.0.0\n")
    site.run(PATH=programs, TMPDIR=str(root))
    add_release(site.releases, "1.2.0")
    site.install()
    assert (site.version(), site.unit.read_text()) == ("orion 1.2.0", "# unit of 1.2.0\n")
    site.install("--rollback")
    assert (site.version(), site.unit.read_text()) == ("orion 1.0.0", "# unit of 1.0.0\n")


@pytest.mark.parametrize("cut", CUTS)
def test_a_rollback_that_was_cut_short_is_brought_to_its_end_by_the_next_one(site: Site, root: Path, cut: str) -> None:
    for version in ("1.0.0", "1.1.0"):
        add_release(site.releases, version)
        site.install()
    site.run("--rollback", PATH=saying(root, **CUTS[cut]), TMPDIR=str(root))
    for version in ("1.0.0", "1.1.0"):
        site.install("--rollback")
        assert (site.version(), site.unit.read_text()) == (f"orion {version}", f"# unit of {version}\n")


def test_what_a_killed_run_had_not_finished_is_removed(site: Site) -> None:
    add_release(site.releases, "1.0.0")
    site.install()
    before = site.files()
    (site.lib / ".new-4711").mkdir()
    (site.lib / ".new-4711" / "orion").write_text("half")
    (site.lib / "current.new-4711").symlink_to("1.1.0")
    site.install()
    assert site.files() == before


def test_rollback_without_an_earlier_version_says_so(site: Site) -> None:
    add_release(site.releases, "1.0.0")
    site.install()
    done = site.run("--rollback")
    assert (done.returncode, "error 18" in done.stdout) == (18, True)


def test_installing_twice_changes_nothing(site: Site) -> None:
    add_release(site.releases, "1.0.0")
    site.install()
    before = site.files()
    site.install()
    assert site.files() == before


def test_installing_again_repairs_what_was_lost(site: Site) -> None:
    add_release(site.releases, "1.0.0")
    site.install()
    (site.lib / "1.0.0" / "orion").unlink()
    site.binary.unlink()
    site.install()
    assert site.version() == "orion 1.0.0"


def test_another_build_of_a_version_takes_its_place(site: Site) -> None:
    add_release(site.releases, "1.0.0")
    site.install()
    add_release(site.releases, "1.0.0", program="#!/bin/sh\necho 'orion 1.0.0 again'\n")
    site.install()
    assert site.version() == "orion 1.0.0 again"


def test_a_unit_that_a_person_changed_stays(site: Site) -> None:
    add_release(site.releases, "1.0.0")
    site.install()
    site.unit.write_text("# mine\n")
    add_release(site.releases, "1.1.0")
    done = site.run()
    assert done.returncode == 0
    assert "was changed by hand and stays" in done.stdout
    assert site.unit.read_text() == "# mine\n"


def test_a_dry_run_says_what_it_would_do_and_does_nothing(site: Site) -> None:
    add_release(site.releases, "1.0.0")
    before = site.files()
    done = site.run("--dry-run")
    assert done.returncode == 0, done.stdout
    assert "would run: tar" in done.stdout
    assert "nothing was changed" in done.stdout
    assert "installed 1.0.0" not in done.stdout
    assert site.files() == before
    site.install()
    before = site.files()
    add_release(site.releases, "1.1.0")
    for arguments in (("--dry-run",), ("--dry-run", "--uninstall"), ("--purge", "--dry-run")):
        assert site.run(*arguments).returncode == 0
        assert site.files() == before


def leave_traces(site: Site) -> None:
    """Put there what a running agent and its operator leave."""
    for name in ("etc/orion/config.json", "var/log/orion-agent.log", "var/log/orion-agent.log.1"):
        (site.root / name).parent.mkdir(parents=True, exist_ok=True)
        (site.root / name).write_text("mine")
    site.unit.with_name("orion-agent.service.d").mkdir()


def test_uninstall_keeps_what_belongs_to_the_operator(site: Site) -> None:
    add_release(site.releases, "1.0.0")
    site.install()
    leave_traces(site)
    site.install("--uninstall")
    left = {path for path, kind in site.files().items() if kind != "folder"}
    assert left == {"etc/orion/config.json", "var/log/orion-agent.log", "var/log/orion-agent.log.1"}


def test_purge_leaves_the_root_as_it_was(site: Site) -> None:
    add_release(site.releases, "1.0.0")
    before = site.files()
    site.install()
    leave_traces(site)
    site.install("--purge")
    left = site.files()
    for made_by_this_test in ("etc", "var", "var/log"):
        left.pop(made_by_this_test, None)
    assert left == before


def test_uninstalling_nothing_is_no_error(site: Site) -> None:
    site.install("--uninstall")


def refused(site: Site, number: int, *arguments: str, before: tuple[str, ...] = (), **environment: str) -> str:
    """Run, expect the numbered error and an untouched root, and return what was said."""
    untouched = site.files()
    done = site.run(*arguments, before=before, shell=("sh",), script=None, **environment)
    assert done.returncode == number, done.stdout
    assert f"error {number}: " in done.stdout
    assert site.files() == untouched
    return done.stdout


@pytest.fixture(params=[False, True], ids=["fresh", "installed"])
def either_site(request: pytest.FixtureRequest, site: Site) -> Site:
    """Return a site with nothing installed, then one with 1.0.0; a newer release can be added."""
    if request.param:
        add_release(site.releases, "1.0.0")
        site.install()
    return site


def test_a_tampered_tarball_is_refused(either_site: Site) -> None:
    path = add_release(either_site.releases, "1.1.0")
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)
    assert "checksum" in refused(either_site, 19)


def test_a_truncated_tarball_is_refused(either_site: Site) -> None:
    path = add_release(either_site.releases, "1.1.0")
    path.write_bytes(path.read_bytes()[:-100])
    refused(either_site, 19)


def test_a_download_that_breaks_off_is_refused(either_site: Site) -> None:
    path = add_release(either_site.releases, "1.1.0")
    path.with_name(path.name + ".cut").touch()
    refused(either_site, 17)


def test_a_program_that_does_not_run_here_is_refused(either_site: Site) -> None:
    add_release(either_site.releases, "1.1.0", program=BROKEN)
    assert "error while loading" in refused(either_site, 22)


def test_a_tarball_that_is_none_is_refused(either_site: Site) -> None:
    (either_site.releases / tarball_name("1.1.0")).write_text("<html>not here</html>")
    write_checksums(either_site.releases)
    refused(either_site, 21)


def test_a_version_that_is_not_offered_names_those_that_are(either_site: Site) -> None:
    add_release(either_site.releases, "1.0.0")
    add_release(either_site.releases, "3.0.0", arch="riscv64")
    assert "it offers: 1.0.0" in refused(either_site, 18, "--version", "3.0.0")


def test_a_site_without_checksums_is_refused(either_site: Site) -> None:
    (either_site.releases / "SHA256SUMS").unlink(missing_ok=True)
    refused(either_site, 17)


def test_a_site_that_is_down_is_refused(either_site: Site) -> None:
    refused(either_site, 17, ORION_BASE_URL="http://127.0.0.1:1")


@pytest.mark.parametrize("address", ["http://example.org", "http://localhost.example.org", "http://127.0.0.1.nip.io"])
def test_plain_http_to_another_machine_is_refused(either_site: Site, address: str) -> None:
    assert "only https" in refused(either_site, 15, ORION_BASE_URL=address)


@pytest.mark.skipif(shutil.which("setarch") is None, reason="needs util-linux's setarch")
@pytest.mark.skipif(ARCH != "x86_64", reason="only x86_64 has a 32-bit personality everywhere")
def test_a_wrong_architecture_is_refused(either_site: Site) -> None:
    add_release(either_site.releases, "1.1.0")
    assert "i686" in refused(either_site, 12, before=("setarch", "linux32"))


def saying(folder: Path, **answers: str) -> str:
    """Return a PATH on which programs answer as another system's do: shell code by name, "" for not there."""
    own = folder / "programs"
    own.mkdir()
    for name, code in answers.items():
        if code:
            (own / name).write_text(f"#!/bin/sh\n{code}\n")
            (own / name).chmod(0o755)
    if all(answers.values()):
        return f"{own}:{os.environ['PATH']}"
    for place in os.environ["PATH"].split(":"):
        for path in Path(place).glob("*") if place.startswith(("/usr", "/bin", "/sbin")) else ():
            if path.name not in answers and not (own / path.name).exists():
                (own / path.name).symlink_to(path)
    return str(own)


@pytest.mark.parametrize(
    ("number", "words", "answers"),
    [
        (11, "FreeBSD", {"uname": "echo FreeBSD"}),
        (12, "riscv64", {"uname": '[ "$1" = -s ] && echo Linux || echo riscv64'}),
        (12, "32-bit", {"getconf": "echo 32"}),
        (13, "musl", {"getconf": "exit 1", "ldd": "echo 'musl libc (x86_64)' >&2; exit 1"}),
        (13, "musl", {"getconf": "", "ldd": "echo 'musl libc (x86_64)' >&2; exit 1"}),
        (13, "older than 2.28", {"getconf": '[ "$1" = LONG_BIT ] && echo 64 || echo glibc 2.27'}),
        (13, "older than 2.28", {"getconf": "", "ldd": "echo 'ldd (Ubuntu GLIBC 2.27-3ubuntu1) 2.27'"}),
        (15, "neither curl nor wget", {"curl": "", "wget": ""}),
        (16, "without tar", {"tar": ""}),
        (16, "sha256sum or openssl", {"sha256sum": "", "openssl": ""}),
    ],
)
def test_a_system_that_it_is_not_made_for_is_refused(
    either_site: Site, root: Path, number: int, words: str, answers: dict[str, str]
) -> None:
    add_release(either_site.releases, "1.1.0")
    assert words in refused(either_site, number, PATH=saying(root, **answers))


@pytest.mark.skipif(shutil.which("openssl") is None, reason="there is no openssl here")
def test_only_openssl_is_enough_to_check_the_download(site: Site, root: Path) -> None:
    add_release(site.releases, "1.0.0")
    programs = saying(root, sha256sum="")
    done = site.run(PATH=programs)
    assert done.returncode == 0, done.stdout
    add_release(site.releases, "1.1.0").write_bytes(b"tampered")
    refused(site, 19, PATH=programs)


def test_words_it_does_not_know_are_refused(either_site: Site) -> None:
    refused(either_site, 10, "--force")
    refused(either_site, 10, "--version")


def test_two_installations_at_once_are_refused_and_a_dead_ones_lock_is_taken_over(site: Site) -> None:
    add_release(site.releases, "1.0.0")
    lock = site.lib.with_name("orion-agent.lock")
    lock.mkdir()
    (lock / "pid").write_text(f"{os.getpid()}\n")
    refused(site, 24)
    (lock / "pid").write_text("999999999\n")
    site.install()
    assert not lock.exists()


def test_a_lock_from_before_a_power_cut_is_taken_over_though_its_number_is_in_use_again(site: Site) -> None:
    add_release(site.releases, "1.0.0")
    lock = site.lib.with_name("orion-agent.lock")
    lock.mkdir()
    (lock / "pid").write_text(f"{os.getpid()}\n")
    (lock / "boot").write_text(Path("/proc/sys/kernel/random/boot_id").read_text())
    refused(site, 24)
    (lock / "boot").write_text("5f0c7f7e-0000-4000-8000-000000000000\n")
    site.install()
    assert not lock.exists()


@pytest.mark.skipif(shutil.which("wget") is None, reason="there is no wget here")
def test_only_wget_is_enough(site: Site, root: Path) -> None:
    add_release(site.releases, "1.0.0")
    done = site.run(PATH=saying(root, curl=""))
    assert done.returncode == 0, done.stdout
    assert site.version() == "orion 1.0.0"


def test_a_script_that_was_cut_off_on_its_way_runs_nothing(site: Site) -> None:
    add_release(site.releases, "1.0.0")
    whole = INSTALLER.read_bytes().rstrip(b"\n")
    ends = [position for position, byte in enumerate(whole) if byte == ord("\n")]
    cuts = [*ends[::12], *range(len(whole) - 45, len(whole))]
    for cut in cuts:
        done = site.run(script=whole[:cut])
        assert "orion:" not in done.stdout, f"cut at {cut}: {done.stdout}"
    assert not site.lib.exists()


def test_help_is_short_and_changes_nothing(site: Site) -> None:
    done = site.run("--help")
    assert done.returncode == 0
    assert "--rollback" in done.stdout


@pytest.mark.system
def test_without_root_and_without_sudo_nothing_is_tried(site: Site) -> None:
    add_release(site.releases, "1.0.0")
    tools = "/usr/bin:/bin"
    if shutil.which("sudo", path=tools) or shutil.which("doas", path=tools):
        pytest.skip("this machine has sudo")
    as_nobody = ("setpriv", "--reuid=65534", "--regid=65534", "--clear-groups")
    said = refused(site, 14, before=as_nobody, ORION_INSTALL_ROOT="", PATH=tools)
    assert "run this as root" in said


@pytest.mark.system
def test_a_sudo_that_refuses_is_a_reason_to_stop(site: Site, root: Path) -> None:
    add_release(site.releases, "1.0.0")
    root.chmod(0o755)
    programs = saying(root, sudo="echo 'nobody is not in the sudoers file' >&2; exit 1")
    as_nobody = ("setpriv", "--reuid=65534", "--regid=65534", "--clear-groups")
    said = refused(site, 14, before=as_nobody, ORION_INSTALL_ROOT="", PATH=programs)
    assert "not in the sudoers file" in said


@pytest.mark.system
def test_a_read_only_system_is_refused(either_site: Site) -> None:
    add_release(either_site.releases, "1.1.0")
    fixed = 'mount --bind "$0" "$0" && mount -o remount,bind,ro "$0" && exec "$@"'
    said = refused(either_site, 23, before=("unshare", "--mount", "sh", "-c", fixed, str(either_site.root)))
    assert "mounted read-only" in said


@pytest.mark.system
def test_a_full_disk_is_refused_before_anything_is_touched(either_site: Site) -> None:
    add_release(either_site.releases, "1.1.0")
    full = either_site.releases.with_name("full")
    full.mkdir()
    small = f'mount -t tmpfs -o size=8m tmpfs "{full}" && exec "$@"'
    refused(either_site, 20, before=("unshare", "--mount", "sh", "-c", small, "sh"), ORION_INSTALL_ROOT=str(full))


@pytest.mark.system
def test_a_download_folder_without_space_is_refused(either_site: Site, root: Path) -> None:
    add_release(either_site.releases, "1.1.0")
    (root / "tmp").mkdir()
    small = f'mount -t tmpfs -o size=1m tmpfs "{root}/tmp" && exec "$@"'
    refused(either_site, 20, before=("unshare", "--mount", "sh", "-c", small, "sh"), TMPDIR=str(root / "tmp"))
