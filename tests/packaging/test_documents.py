"""What is shipped beside the program is true."""

import re
import shutil
import subprocess
from pathlib import Path

import pytest

from orionagent.config import load_agent_config, load_scripts
from orionagent.paths import Paths

REPOSITORY = Path(__file__).parents[2]


def test_the_sample_configuration_is_accepted_as_it_is(paths: Paths) -> None:
    for name, target in (("config.json", paths.config), ("scripts.json", paths.scripts)):
        shutil.copy(REPOSITORY / "etc" / name, target)
        Path(target).chmod(0o600)
    assert load_agent_config(paths).heartbeatInterval == 30_000
    assert [script.name for script in load_scripts(paths)] == ["api-backend"]


def test_every_error_number_of_the_installer_is_explained_to_operators() -> None:
    installer = (REPOSITORY / "init" / "install.sh").read_text()
    used = {int(number) for number in re.findall(r"\bfail (\d+) ", installer)}
    operators = (REPOSITORY / "docs" / "operators.md").read_text()
    table = operators.partition("### Numbers of the installer")[2]
    explained = {
        int(number) for row in re.findall(r"^\| ([\d, ]+) \|", table, re.MULTILINE) for number in row.split(",")
    }
    assert used == explained


@pytest.mark.skipif(shutil.which("shellcheck") is None, reason="shellcheck is not installed")
def test_shellcheck_finds_no_fault_with_the_scripts() -> None:
    # SC2317: it takes what follows the closing `exit` for unreachable, functions included.
    scripts = ["init/install.sh", "tests/systemd/boot.sh"]
    command = ["shellcheck", "-s", "sh", "-e", "SC2317", *scripts]
    done = subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout
