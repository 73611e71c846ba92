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
