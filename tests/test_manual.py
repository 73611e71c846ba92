"""The manual page knows every command and option, and groff has nothing to complain about."""

import re
import shutil
import subprocess
from pathlib import Path

import pytest

from orionagent.usage import OPTION_SUMMARIES, SUMMARIES, grammar_lines

PAGE = Path(__file__).parents[1] / "docs" / "orion.1"


def plain() -> str:
    """Return the page's text without its markup."""
    lines = []
    for line in PAGE.read_text(encoding="utf-8").splitlines():
        macro = re.match(r"\.(BR|RB|RI|IR|B|I) (.*)", line)
        if macro is not None and len(macro[1]) == 2:
            lines.append(macro[2].replace('"', "").replace(" ", ""))
        elif macro is not None:
            lines.append(macro[2])
        elif not line.startswith("."):
            lines.append(line)
    return re.sub(r"\\f[A-Z]", "", " ".join(lines)).replace("\\-", "-")


def test_the_synopsis_is_the_grammar() -> None:
    synopsis = re.sub(r"\s", "", plain().split("metrics, supervision", 1)[1])
    for line in grammar_lines():
        assert re.sub(r"[<>\s]", "", line.text) in synopsis, line.text


@pytest.mark.parametrize("name", [*OPTION_SUMMARIES])
def test_every_option_is_explained(name: str) -> None:
    assert name in plain().split("The Orion agent is one daemon", 1)[1]


@pytest.mark.parametrize("name", [*SUMMARIES])
def test_every_command_is_explained(name: str) -> None:
    assert name in plain().split("The Orion agent is one daemon", 1)[1]


@pytest.mark.skipif(shutil.which("groff") is None, reason="no groff here")
def test_groff_formats_the_page_without_warnings() -> None:
    done = subprocess.run(
        ["groff", "-man", "-ww", "-z", "-Tutf8", str(PAGE)], capture_output=True, text=True, check=True, timeout=30
    )
    assert done.stderr == ""
