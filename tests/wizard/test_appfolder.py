"""What the set-up writes into an application's folder: private, the owner's, beside what others keep there."""

import json
import os
from pathlib import Path

import pytest

from orionagent.config import load_source_token
from orionagent.errors import ConfigError
from orionagent.wizard.appfolder import AppFolder


@pytest.fixture
def folder(root: Path) -> AppFolder:
    return AppFolder(str(root))


@pytest.fixture
def file(root: Path) -> Path:
    return root / ".orion" / "config.json"


def test_a_token_is_written_beside_the_keys_of_the_sdk(folder: AppFolder, file: Path) -> None:
    folder.write_token("first", "https://x/api/v1")
    assert file.stat().st_mode & 0o777 == 0o600
    file.write_text('{"apiUrl": "https://y/api/v1", "token": "first", "maxQueueSize": 5}', encoding="utf-8")
    file.chmod(0o644)
    folder.write_token("second", "https://x/api/v1")
    assert list(json.loads(file.read_text(encoding="utf-8")).items()) == [
        ("apiUrl", "https://y/api/v1"),
        ("token", "second"),
        ("maxQueueSize", 5),
    ]
    assert file.stat().st_mode & 0o777 == 0o600
    assert load_source_token(folder.path) == folder.token() == "second"


@pytest.mark.skipif(os.geteuid() != 0, reason="giving a file away needs root")
def test_what_root_writes_belongs_to_the_folders_owner(root: Path, folder: AppFolder, file: Path) -> None:
    os.chown(root, 65534, 65534)
    folder.write_token("t", None)
    for path in (file.parent, file):
        assert (path.stat().st_uid, path.stat().st_gid) == (65534, 65534)
    assert os.geteuid() == 0


@pytest.fixture
def shared(root: Path) -> AppFolder:
    """Return a folder of root's that a group deploys to."""
    if os.geteuid() != 0:
        pytest.skip("only root can act as root")
    path = root / "shared"
    path.mkdir()
    os.chown(path, 0, 65534)
    path.chmod(0o2775)
    return AppFolder(str(path))


@pytest.mark.parametrize("planted", [".orion", ".orion/config.json"])
def test_root_is_not_led_away_by_a_link_in_a_folder_that_others_can_write(
    planted: str, root: Path, shared: AppFolder
) -> None:
    secret = root / "etc-orion" / "config.json"
    secret.parent.mkdir()
    secret.write_text('{"token": "of the server"}', encoding="utf-8")
    secret.chmod(0o640)
    link = Path(shared.path, planted)
    link.parent.mkdir(exist_ok=True)
    link.symlink_to(secret if planted.endswith(".json") else secret.parent)
    for attempt in (shared.token, lambda: shared.write_token("t", None), lambda: shared.require_writable("sudo")):
        with pytest.raises(ConfigError, match=f"refusing {link}: it is a symbolic link.*; .*run: sudo rm {link}$"):
            attempt()
    assert secret.read_text(encoding="utf-8") == '{"token": "of the server"}'
    assert secret.stat().st_mode & 0o777 == 0o640
    link.unlink()
    shared.require_writable("sudo")
    shared.write_token("t", None)
    assert shared.token() == "t"


@pytest.mark.parametrize("is_there", [True, False])
def test_root_adds_no_line_to_what_a_planted_gitignore_leads_to(is_there: bool, root: Path, shared: AppFolder) -> None:
    target = root / "sudoers"
    if is_there:
        target.write_text("root ALL\n", encoding="utf-8")
    Path(shared.path, ".git").mkdir()
    link = Path(shared.path, ".gitignore")
    link.symlink_to(target)
    for attempt in (shared.add_gitignore, lambda: shared.require_writable("sudo")):
        with pytest.raises(ConfigError, match=f"refusing {link}: it is a symbolic link"):
            attempt()
    assert target.exists() is is_there
    assert not is_there or target.read_text(encoding="utf-8") == "root ALL\n"


def test_what_only_suggests_a_command_may_be_a_link_everywhere(root: Path, shared: AppFolder) -> None:
    (root / "package.json").write_text("{}", encoding="utf-8")
    Path(shared.path, "package.json").symlink_to(root / "package.json")
    assert shared.read("package.json") == "{}"


def test_a_file_that_a_member_laid_ready_is_not_the_members_with_the_token_in_it(shared: AppFolder) -> None:
    path = Path(shared.config_path)
    path.parent.mkdir()
    path.write_text("{}", encoding="utf-8")
    os.chown(path, 65534, 65534)
    shared.write_token("t", None)
    assert (path.stat().st_uid, path.stat().st_mode & 0o777) == (0, 0o600)


def test_a_link_of_the_folders_owner_is_the_owners_matter(root: Path, folder: AppFolder) -> None:
    kept = root / "kept"
    kept.mkdir()
    (root / ".orion").symlink_to(kept)
    if os.geteuid() == 0:
        os.chown(root, 65534, 65534)
        os.chown(kept, 65534, 65534)
    folder.write_token("t", None)
    assert json.loads((kept / "config.json").read_text(encoding="utf-8")) == {"token": "t"}


@pytest.mark.parametrize("content", ["[]", "{", '"x"', '{"a": 1, "a": 2}'])
def test_what_is_no_json_object_is_left_alone(content: str, folder: AppFolder, file: Path) -> None:
    file.parent.mkdir()
    file.write_text(content, encoding="utf-8")
    with pytest.raises(ConfigError, match="cannot use"):
        folder.write_token("t", None)
    assert file.read_text(encoding="utf-8") == content


def test_nothing_in_the_folder_makes_the_reader_wait(root: Path, folder: AppFolder, file: Path) -> None:
    file.parent.mkdir()
    os.mkfifo(file)
    os.mkfifo(root / "package.json")
    with pytest.raises(ConfigError, match="not a regular file"):
        folder.token()
    assert folder.read("package.json") is None


@pytest.mark.parametrize(
    ("ignored", "wanted"),
    [(None, True), ("node_modules", True), (".orion/\n", False), ("a\n/.orion\n", False), ("# .orion/\n", True)],
)
def test_git_is_told_of_the_token_once(ignored: str | None, wanted: bool, root: Path, folder: AppFolder) -> None:
    gitignore = root / ".gitignore"
    assert not folder.wants_gitignore()
    (root / ".git").mkdir()
    if ignored is not None:
        gitignore.write_text(ignored, encoding="utf-8")
    assert folder.wants_gitignore() is wanted
    if wanted:
        folder.add_gitignore()
        before = [] if ignored is None else ignored.splitlines()
        assert gitignore.read_text(encoding="utf-8").splitlines() == [*before, ".orion/"]
        assert not folder.wants_gitignore()
