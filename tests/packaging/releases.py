"""Makes release folders: tarballs of a stand-in program, and the checksums that go with them.

Knows the tarball's layout, and nothing of what the real program does.
"""

import hashlib
import importlib.util
import io
import marshal
import platform
import shutil
import subprocess
import tarfile
import tempfile
from pathlib import Path

REPOSITORY = Path(__file__).parents[2]
ARCH = {"x86_64": "x86_64", "aarch64": "aarch64", "arm64": "aarch64"}.get(platform.machine(), "other")

STAND_IN = """\
#!/bin/sh
case $1 in
version) echo "orion {version}" ;;
*) exit 3 ;;
esac
"""
BROKEN = "#!/bin/sh\necho 'error while loading shared libraries' >&2\nexit 127\n"


def tarball_name(version: str, arch: str = ARCH) -> str:
    """Return a release's file name."""
    return f"orion-agent-{version}-linux-{arch}.tar.gz"


def add_release(
    folder: Path, version: str, *, arch: str = ARCH, program: str | None = None, unit: str | None = None
) -> Path:
    """Write a tarball with a stand-in program into `folder` and renew SHA256SUMS; return its path."""
    files = {
        "orion": (program or STAND_IN.format(version=version), 0o755),
        "lib/library.zip": (f"modules of {version}", 0o644),
        "share/orion-agent.service": (unit or f"# unit of {version}\n", 0o644),
        "share/orion.1": (".TH ORION 1\n", 0o644),
        "share/orion.bash": ("# completion\n", 0o644),
        "share/install.sh": ("#!/bin/sh\n", 0o755),
    }
    path = folder / tarball_name(version, arch)
    with tarfile.open(path, "w:gz") as archive:
        for name, (text, mode) in files.items():
            member = tarfile.TarInfo(f"orion-agent-{version}/{name}")
            member.size, member.mode = len(text.encode()), mode
            archive.addfile(member, io.BytesIO(text.encode()))
    write_checksums(folder)
    return path


def offer(folder: Path, *tarballs: Path) -> None:
    """Put copies of tarballs into `folder` and renew SHA256SUMS."""
    for tarball in tarballs:
        shutil.copy(tarball, folder)
    write_checksums(folder)


def write_checksums(folder: Path) -> None:
    """Write SHA256SUMS as sha256sum(1) does, over every tarball in `folder`."""
    lines = [
        f"{hashlib.sha256(path.read_bytes()).hexdigest()}  {path.name}\n" for path in sorted(folder.glob("*.tar.gz"))
    ]
    (folder / "SHA256SUMS").write_text("".join(lines))


def add_broken_daemon(folder: Path, *, good: str, broken: str, agent: bytes = b"not byte code") -> None:
    """Add a release made from the real `good` one whose command line works and whose daemon does not.

    `agent` is the byte code of its daemon: such that does not load, unless told otherwise.
    """
    with tempfile.TemporaryDirectory(prefix="or-broken-", dir="/tmp") as name:
        subprocess.run(["tar", "-xzf", folder / tarball_name(good), "-C", name], check=True)
        tree = f"orion-agent-{good}"
        (Path(name) / tree / "lib/orionagent/agent.pyc").write_bytes(agent)
        subprocess.run(["tar", "-czf", folder / tarball_name(broken), "-C", name, tree], check=True)
    write_checksums(folder)


def compile_dying_agent() -> bytes:
    """Return the byte code of this checkout's daemon, changed so that it starts, and dies once it should work."""
    source = (REPOSITORY / "orionagent" / "agent.py").read_text(encoding="utf-8")
    head = "    def run(self) -> int:\n"
    assert head in source
    return byte_code(source.replace(head, head + "        os._exit(7)\n"), "agent.py")


def byte_code(source: str, name: str) -> bytes:
    """Return the content of a .pyc: magic number, no flags, no source time, no source size, the code."""
    return importlib.util.MAGIC_NUMBER + bytes(12) + marshal.dumps(compile(source, name, "exec"))
