"""One booted machine for all tests of this folder."""

from collections.abc import Iterator

import pytest

from tests.systemd.machine import Machine


@pytest.fixture(scope="session")
def machine() -> Iterator[Machine]:
    """Yield a running systemd; tests remove the units they add."""
    with Machine() as booted:
        yield booted
