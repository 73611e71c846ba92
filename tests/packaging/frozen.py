"""Real releases by the project's own builder, each version built once in a test run.

Needs `build/venv`, which `make test-system` makes.
"""

import functools
import subprocess
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.packaging.releases import tarball_name

REPOSITORY = Path(__file__).parents[2]
PYTHON = REPOSITORY / "build" / "venv" / "bin" / "python"


@pytest.fixture(scope="session")
def build() -> Iterator[Callable[[str], Path]]:
    """Yield what builds this checkout under a version's name, or has done so before, and returns the tarball."""
    with tempfile.TemporaryDirectory(prefix="or-dist-", dir="/tmp") as name:

        @functools.cache
        def build(version: str) -> Path:
            assert PYTHON.exists(), "cannot build a release: build/venv is missing; run make test-system"
            command = [str(PYTHON), "init/freeze.py", "--out", name, "--version", version]
            subprocess.run(command, cwd=REPOSITORY, check=True, stdout=subprocess.DEVNULL)
            return Path(name) / tarball_name(version)

        yield build
