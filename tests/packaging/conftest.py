"""A real release for the tests that want one."""

from collections.abc import Callable
from pathlib import Path

import pytest


@pytest.fixture(scope="session")
def release(build: Callable[[str], Path]) -> Path:
    """Return the tarball of a build of this checkout, called 1.0.0."""
    return build("1.0.0")
