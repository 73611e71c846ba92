"""A folder of real releases for the tests that want one."""

import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.packaging.frozen import build


@pytest.fixture(scope="session")
def release() -> Iterator[Path]:
    """Yield the tarball of a build of this checkout, called 1.0.0."""
    folder = Path(tempfile.mkdtemp(prefix="or-dist-", dir="/tmp"))
    yield build("1.0.0", folder)
    shutil.rmtree(folder)
