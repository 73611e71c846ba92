"""Runs the test suite against an unpacked release: `python tests/packaging/frozen_suite.py TREE [pytest options]`.

Every module that the release has is imported from there, also the libraries and the standard library; what the tests
run as a program (`ORION_BIN`) is the packaged one. So a module that was left out, trimmed too far or compiled with
the wrong options fails a test.
"""

import os
import sys
from pathlib import Path

import pytest


def main() -> int:
    """Run pytest and return its exit status."""
    tree = Path(sys.argv[1]).resolve()
    library = tree / "lib"
    os.environ["ORION_BIN"] = str(tree / "orion")
    os.environ["PYTHONPATH"] = str(library)
    sys.path.insert(0, str(library))
    # First of all: pytest puts the checkout in front of the path.
    import orionagent  # noqa: PLC0415

    assert Path(str(orionagent.__file__)).is_relative_to(library), orionagent.__file__
    return int(pytest.main(["-m", "not browser and not system and not soak", *sys.argv[2:]]))


if __name__ == "__main__":
    sys.exit(main())
