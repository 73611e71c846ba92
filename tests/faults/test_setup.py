"""The set-up under faults: certificates, clocks, disks; a clear message each time, and no half-written file."""

import json
import os
import subprocess
from contextlib import closing
from pathlib import Path

import pytest

from tests.console.process import ConsoleProcess
from tests.faults.certificates import Mode
from tests.faults.fixtures import FaultyBackend
from tests.test_wizard import ORION, environment, setup, written

needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="mounts file systems")
TOKEN = "token-of-the-test"
NOT_FOR_PEOPLE = ["/projects"]  # this backend takes what agents send, and nothing else


@pytest.mark.parametrize("mode", ["self-signed", "expired", "wrong-name"])
def test_a_certificate_that_is_not_trusted_ends_the_set_up(mode: Mode, root: Path) -> None:
    with closing(FaultyBackend(tls=mode)) as backend:
        code, output, errors = setup(root, "--api-url", backend.url, "--yes", ORION_TOKEN=TOKEN)
    assert (code, output) == (1, "")
    assert "certificate is not trusted" in errors
    assert TOKEN not in errors
    assert not (root / "etc").exists()


def test_an_authority_of_one_s_own_is_taken_from_the_environment(root: Path) -> None:
    with closing(FaultyBackend(tls="good")) as backend:
        backend.rule(missing_routes=NOT_FOR_PEOPLE)
        trusting = {"ORION_TOKEN": TOKEN, "REQUESTS_CA_BUNDLE": str(backend.ca_file)}
        code, _, errors = setup(root, "--api-url", backend.url, "--yes", **trusting)
    assert (code, errors) == (0, "")


def test_a_clock_that_is_off_is_said(root: Path) -> None:
    with closing(FaultyBackend()) as backend:
        backend.rule(clock_skew_s=7200, missing_routes=NOT_FOR_PEOPLE)
        code, output, _ = setup(root, "--api-url", backend.url, "--yes", ORION_TOKEN=TOKEN)
    assert code == 0
    assert "clock is 1h 59m behind" in output or "clock is 2h 0m behind" in output
    assert written(root)["token"] == TOKEN


def test_a_backend_that_refuses_the_first_heartbeat_leaves_nothing_behind(root: Path) -> None:
    with closing(FaultyBackend()) as backend:
        backend.rule(missing_routes=NOT_FOR_PEOPLE)
        backend.fail("status", status=503, path="/agent/heartbeat", times=0)
        code, output, errors = setup(root, "--api-url", backend.url, "--yes", ORION_TOKEN=TOKEN)
    assert (code, output) == (1, "")
    assert "503" in errors
    assert not (root / "etc").exists()


def mounted(root: Path, mount: str, *arguments: str, token: str) -> "subprocess.CompletedProcess[str]":
    """Run the set-up with something mounted at its etc, in a mount namespace of its own; then list what is there."""
    (root / "etc" / "orion").mkdir(parents=True)
    program = f'{mount} && {{ "$@"; code=$?; ls -A "{root}/etc/orion" >&2; exit $code; }}'
    return subprocess.run(
        ["unshare", "--mount", "sh", "-c", program, "sh", *ORION, "setup", "--server", *arguments, "--yes"],
        env=environment(root, ORION_TOKEN=token), capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip


@needs_root
def test_a_read_only_etc_is_said_before_anything_is_asked(root: Path) -> None:
    mount = f'mount -t tmpfs -o ro tmpfs "{root}/etc/orion"'
    done = mounted(root, mount, "--api-url", "http://127.0.0.1:1", token=TOKEN)
    assert done.returncode == 1
    assert "read-only disk" in done.stderr
    assert "config.json\n" not in done.stderr.split("\n", 1)[1]


@needs_root
def test_a_full_disk_leaves_no_half_written_file(root: Path) -> None:
    full = f'mount -t tmpfs -o size=4k tmpfs "{root}/etc/orion" && head -c 4096 /dev/zero > "{root}/etc/orion/ballast"'
    with ConsoleProcess(root / "console") as console:
        done = mounted(root, full, "--api-url", console.url, "--project=shop", token=console.token)
    assert done.returncode == 1
    assert "No space left on device; nothing was changed" in done.stderr
    assert done.stderr.splitlines()[-1] == "ballast"


def test_a_config_without_a_token_keeps_its_other_keys(root: Path) -> None:
    (root / "etc" / "orion").mkdir(parents=True)
    path = root / "etc" / "orion" / "config.json"
    path.write_text(json.dumps({"hostname": "web9", "heartbeatInterval": 5000}), encoding="utf-8")
    with closing(FaultyBackend()) as backend:
        backend.rule(missing_routes=NOT_FOR_PEOPLE)
        assert setup(root, "--api-url", backend.url, "--yes", ORION_TOKEN=TOKEN)[0] == 0
    assert {"hostname": "web9", "heartbeatInterval": 5000, "token": TOKEN}.items() <= dict(written(root)).items()
