"""An application's own token is read from its folder, and not at every request."""

import json
from pathlib import Path

from orionagent.sourcetokens import FRESH_S, SourceTokens


def write_token(folder: Path, token: str) -> None:
    (folder / ".orion").mkdir(exist_ok=True)
    path = folder / ".orion" / "config.json"
    path.write_text(json.dumps({"token": token}), encoding="utf-8")
    path.chmod(0o600)


def test_a_folders_token_is_remembered_for_a_while_and_then_read_anew(tmp_path: Path) -> None:
    clock = [100.0]
    tokens = SourceTokens({"api": str(tmp_path)}.get, lambda: clock[0])
    write_token(tmp_path, "first")
    assert tokens.find("api") == "first"
    write_token(tmp_path, "second")
    clock[0] += FRESH_S - 1
    assert tokens.find("api") == "first"
    clock[0] += 1
    assert tokens.find("api") == "second"


def test_a_reload_asks_at_once_and_a_source_without_a_folder_or_file_has_none(tmp_path: Path) -> None:
    tokens = SourceTokens({"api": str(tmp_path)}.get, lambda: 0.0)
    assert tokens.find("api") is None
    assert tokens.find("terminal") is None
    write_token(tmp_path, "mine")
    assert tokens.find("api") is None
    tokens.forget()
    assert tokens.find("api") == "mine"
