"""One console for a whole module: tests take projects of their own where they would meet."""

import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.console.process import ConsoleProcess


@pytest.fixture(scope="module")
def console() -> Iterator[ConsoleProcess]:
    folder = Path(tempfile.mkdtemp(prefix="oc-", dir="/tmp"))
    with ConsoleProcess(folder) as running:
        yield running
    shutil.rmtree(folder)


@pytest.fixture
def project(console: ConsoleProcess, request: pytest.FixtureRequest) -> tuple[str, str]:
    """Return (name, device token) of a fresh project."""
    name = f"p{abs(hash(request.node.nodeid)) % 10**10}"
    made = console.post("/api/projects", {"name": name, "label": request.node.name})
    return name, made["token"]
