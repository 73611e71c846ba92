"""Builds the release: the frozen program, what is installed beside it, the tarball and its checksum.

Knows nothing of how the agent works. Run by `make dist` with an interpreter that has the agent and cx_Freeze.
"""

import argparse
import contextlib
import datetime
import gzip
import hashlib
import os
import platform
import re
import shutil
import subprocess
import sys
import tarfile
from pathlib import Path

from cx_Freeze import Executable, Freezer

HERE = Path(__file__).resolve().parent
REPOSITORY = HERE.parent
PACKAGE = REPOSITORY / "orionagent"

# Found by following imports, or by their hooks, but never used: each is megabytes or milliseconds.
EXCLUDES = [
    *("_curses", "_curses_panel", "_tkinter", "curses", "idlelib", "lib2to3", "multiprocessing"),
    *("pip", "pydoc", "pydoc_data", "readline", "setuptools", "test", "tkinter", "turtle", "unittest"),
    *("_bz2", "_codecs_cn", "_codecs_hk", "_codecs_iso2022", "_codecs_jp", "_codecs_kr", "_codecs_tw"),
    *("_lzma", "_multibytecodec", "_uuid", "bz2", "lzma"),
    *("venv", "wheel", "xmlrpc", "ensurepip", "distutils", "pkg_resources", "cffi", "pycparser"),
    *("gevent.tests", "gevent.testing", "psutil.tests", "cryptography", "OpenSSL", "pytest", "mypy"),
    # requests guesses a text's encoding by one of the first two. Nothing asks it to, and they are 2 MiB of memory.
    *("charset_normalizer", "chardet"),
    *("werkzeug.debug", "socks", "brotli", "brotlicffi", "zstandard", "simplejson", "watchdog"),
]
# Imported by name at run time, which following imports cannot see.
INCLUDES = ["gevent.ares", "gevent.resolver.thread", "gevent._threading", "encodings.idna", "encodings.ascii"]
PACKAGES = ["orionagent", "encodings"]

# tarball name -> where it lies in the checkout; what is not there (yet) is left out and said so
SHARED = {
    "orion-agent.service": "init/orion-agent.service",
    "install.sh": "init/install.sh",
    "config.json": "etc/config.json",
    "scripts.json": "etc/scripts.json",
    "LICENSE": "LICENSE",
    "CHANGELOG.md": "CHANGELOG.md",
    "orion.1": "docs/orion.1",
    "operators.md": "docs/operators.md",
}
SHELLS = ("bash", "zsh", "fish")


def main() -> None:
    """Build into the folder that the command line names, `dist` by default."""
    parser = argparse.ArgumentParser(description="Build dist/orion-agent-VERSION-linux-ARCH.tar.gz")
    parser.add_argument("--out", type=Path, default=REPOSITORY / "dist")
    parser.add_argument("--version", help="pretend to be this version (for the tests of upgrades)")
    arguments = parser.parse_args()
    version = arguments.version or read_version()
    work = REPOSITORY / "build" / "freeze"
    shutil.rmtree(work, ignore_errors=True)
    tree = work / f"orion-agent-{version}"
    source = stage(work / "source", version)
    freeze(source, tree)
    trim(tree)
    share(tree)
    arguments.out.mkdir(parents=True, exist_ok=True)
    tarball = arguments.out / f"orion-agent-{version}-linux-{platform.machine()}.tar.gz"
    pack(tree, tarball)
    write_checksums(arguments.out)
    unpacked = sum(path.lstat().st_size for path in tree.rglob("*"))
    floor = ".".join(map(str, glibc_floor(tree)))
    print(f"{tarball}: {tarball.stat().st_size / 1e6:.1f} MB, unpacked {unpacked / 1e6:.1f} MB, glibc {floor}")


def read_version() -> str:
    """Read the version from the package without importing it."""
    text = (PACKAGE / "__init__.py").read_text(encoding="utf-8")
    found = re.search(r'^__version__ = "(.+)"$', text, re.MULTILINE)
    if found is None:
        raise SystemExit("cannot build: orionagent/__init__.py names no __version__")
    return found[1]


def stage(folder: Path, version: str) -> Path:
    """Copy the package, with its version and its description of this build, and the start scripts."""
    shutil.copytree(PACKAGE, folder / "orionagent", ignore=shutil.ignore_patterns("__pycache__"))
    init = folder / "orionagent" / "__init__.py"
    text = init.read_text(encoding="utf-8")
    for empty, filled in (
        (f'__version__ = "{read_version()}"', f'__version__ = "{version}"'),
        ('__build__ = ""', f'__build__ = "{describe()}"'),
    ):
        if empty not in text:
            raise SystemExit(f"cannot build: {init} has no line {empty!r}")
        text = text.replace(empty, filled)
    init.write_text(text, encoding="utf-8")
    for name in ("start.py", "main.py"):
        shutil.copy(HERE / name, folder)
    return folder


def describe() -> str:
    """Return how, when and of what this program is built, in one line."""
    day = datetime.datetime.fromtimestamp(build_time_s(), datetime.UTC).date().isoformat()
    python = platform.python_version()
    return f"built {day} from {commit()} for Linux {platform.machine()}, CPython {python}, by cx_Freeze"


def build_time_s() -> int:
    """Return the commit's time, so that one commit makes one tarball; SOURCE_DATE_EPOCH overrides it."""
    given = os.environ.get("SOURCE_DATE_EPOCH") or git("log", "-1", "--format=%ct")
    return int(given) if given else int(datetime.datetime.now(datetime.UTC).timestamp())


def commit() -> str:
    """Return the commit's short name, marked when the checkout differs from it."""
    name = git("rev-parse", "--short", "HEAD") or "an unknown commit"
    return f"{name}+changes" if git("status", "--porcelain") else name


def git(*arguments: str) -> str:
    """Return git's answer, empty outside of a checkout."""
    with contextlib.suppress(OSError, subprocess.CalledProcessError):
        done = subprocess.run(["git", *arguments], cwd=REPOSITORY, capture_output=True, text=True, check=True)
        return done.stdout.strip()
    return ""


def freeze(source: Path, tree: Path) -> None:
    """Make the program tree `tree`: `orion`, and everything it imports below `lib`."""
    sys.path.insert(0, str(source))
    executable = Executable(script=str(source / "main.py"), init_script=str(source / "start.py"), target_name="orion")
    path = [str(source), *[entry for entry in sys.path if entry and Path(entry).resolve() != REPOSITORY]]
    Freezer(
        [executable],
        includes=INCLUDES,
        excludes=EXCLUDES,
        packages=PACKAGES,
        path=path,
        target_dir=str(tree),
        optimize=1,  # 2 drops docstrings, and docopt reads one
        compress=False,
        zip_include_packages=[],
        zip_exclude_packages=["*"],
        silent=2,
    ).freeze()


def trim(tree: Path) -> None:
    """Drop what no program needs: symbols, sources, tests, type stubs, packaging data."""
    for pattern in ("*.pyi", "*.pyx", "*.pxd", "*.c", "*.h", "*.cpp", "py.typed", "frozen_application_license.txt"):
        for path in tree.rglob(pattern):
            path.unlink()
    for folder in [*tree.rglob("tests"), *tree.rglob("*.dist-info"), *tree.rglob("__pycache__")]:
        if folder.is_dir():
            shutil.rmtree(folder)
    for path in tree.rglob("*"):
        if path.is_file() and not path.is_symlink() and is_elf(path):
            path.chmod(0o755)
            subprocess.run(["strip", "--strip-unneeded", path], check=True)


def share(tree: Path) -> None:
    """Add what is installed beside the program."""
    folder = tree / "share"
    folder.mkdir(exist_ok=True)  # cx_Freeze puts the certificates there
    for name, origin in SHARED.items():
        path = REPOSITORY / origin
        if path.exists():
            shutil.copy(path, folder / name)
        else:
            print(f"left out: {origin} is not there", file=sys.stderr)
    (folder / "install.sh").chmod(0o755)
    for shell in SHELLS:
        done = subprocess.run([tree / "orion", "completion", shell], capture_output=True, check=False)
        if done.returncode == 0:
            (folder / f"orion.{shell}").write_bytes(done.stdout)
        else:
            print(f"left out: there is no completion for {shell}", file=sys.stderr)


def pack(tree: Path, tarball: Path) -> None:
    """Write the tarball: one top folder, owned by root, in a fixed order and with the commit's time."""
    time_s = build_time_s()

    def settle(member: tarfile.TarInfo) -> tarfile.TarInfo:
        member.uid = member.gid = 0
        member.uname = member.gname = "root"
        member.mtime = time_s
        member.mode = 0o755 if member.isdir() or member.mode & 0o100 else 0o644
        return member

    with (
        tarball.open("wb") as raw,
        gzip.GzipFile("", "wb", 9, raw, mtime=time_s) as zipped,
        tarfile.open(fileobj=zipped, mode="w", format=tarfile.GNU_FORMAT) as archive,
    ):
        for path in [tree, *sorted(tree.rglob("*"))]:
            archive.add(path, str(path.relative_to(tree.parent)), recursive=False, filter=settle)


def write_checksums(folder: Path) -> None:
    """Write SHA256SUMS over every tarball in `folder`, as sha256sum(1) would."""
    lines = [
        f"{hashlib.sha256(path.read_bytes()).hexdigest()}  {path.name}\n"
        for path in sorted(folder.glob("orion-agent-*.tar.gz"))
    ]
    (folder / "SHA256SUMS").write_text("".join(lines), encoding="ascii")


def glibc_floor(tree: Path) -> tuple[int, ...]:
    """Return the newest glibc symbol version that any file of the tree asks for."""
    newest: tuple[int, ...] = (0,)
    for path in tree.rglob("*"):
        if path.is_file() and is_elf(path):
            for found in re.findall(rb"GLIBC_(2\.[0-9.]+)\0", path.read_bytes()):
                newest = max(newest, tuple(int(part) for part in found.split(b".")))
    return newest


def is_elf(path: Path) -> bool:
    """Tell whether a file is a program or a library."""
    with path.open("rb") as file:
        return file.read(4) == b"\x7fELF"


if __name__ == "__main__":
    main()
