"""Builds real releases with the project's own builder, once per version and test run.

Needs `build/venv`, which `make test-system` makes.
"""

import functools
import subprocess
from pathlib import Path

from tests.packaging.releases import ARCH

REPOSITORY = Path(__file__).parents[2]
PYTHON = REPOSITORY / "build" / "venv" / "bin" / "python"


@functools.cache
def build(version: str, folder: Path) -> Path:
    """Build one version's tarball into `folder`, renew its SHA256SUMS, and return the tarball."""
    assert PYTHON.exists(), "cannot build a release: build/venv is missing; run make test-system"
    command = [str(PYTHON), "init/freeze.py", "--out", str(folder), "--version", version]
    subprocess.run(command, cwd=REPOSITORY, check=True, stdout=subprocess.DEVNULL)
    return folder / f"orion-agent-{version}-linux-{ARCH}.tar.gz"
