"""Files that people edit are read strictly, refused clearly and written whole."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from orionagent.config import (
    AgentConfig,
    ScriptConfig,
    api_base,
    check_script_target,
    load_agent_config,
    load_scripts,
    load_source_token,
    parse_script,
    read_env_file,
    save_agent_config,
    save_scripts,
)
from orionagent.errors import ConfigError
from orionagent.paths import Paths

GUIDE_SCRIPT = {
    "name": "api-backend",
    "command": "node dist/index.js",
    "cwd": "/opt/myapp",
    "autoRestart": True,
    "maxRestarts": 5,
    "backoffBase": 1000,
    "captureOutput": True,
}


def write_scripts(paths: Paths, *scripts: object) -> None:
    Path(paths.scripts).write_text(json.dumps(scripts), encoding="utf-8")


def refusal(paths: Paths) -> str:
    with pytest.raises(ConfigError) as caught:
        load_scripts(paths)
    return caught.value.message


def test_the_guides_script_is_read_as_it_stands(paths: Paths) -> None:
    write_scripts(paths, GUIDE_SCRIPT)
    assert load_scripts(paths) == (ScriptConfig(name="api-backend", command="node dist/index.js", cwd="/opt/myapp"),)


def test_missing_files_mean_defaults(paths: Paths) -> None:
    assert load_scripts(paths) == ()
    assert load_agent_config(paths) == AgentConfig()


def test_malformed_json_names_file_line_and_column(paths: Paths) -> None:
    Path(paths.scripts).write_text('[\n  {"name": "a",\n   oops\n]', encoding="utf-8")
    assert "line 3, column 4" in refusal(paths)
    assert paths.scripts in refusal(paths)


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        ({"comand": "x"}, "did you mean 'command'?"),
        ({"name": "Api"}, "lowercase"),
        ({"name": "../api"}, "lowercase"),
        ({"maxRestarts": "five"}, "maxRestarts"),
        ({"maxRestarts": -1}, "maxRestarts"),
        ({"stopSignal": "HUGS"}, "stopSignal"),
        ({"cwd": "relative"}, "absolute"),
        ({"stderrLevel": "loud"}, "stderrLevel"),
        ({"umask": "999"}, "umask"),
        ({"command": "  "}, "command"),
        ({"limits": {"nofiles": 3}}, "did you mean 'nofile'?"),
        ({"env": {"A B": "x"}}, "env"),
    ],
)
def test_a_wrong_field_is_named_with_its_remedy(paths: Paths, change: dict[str, Any], expected: str) -> None:
    write_scripts(paths, {**GUIDE_SCRIPT, **change})
    assert expected in refusal(paths)


def test_a_missing_command_and_a_duplicate_name_are_refused(paths: Paths) -> None:
    write_scripts(paths, {"name": "a"})
    assert "command" in refusal(paths)
    write_scripts(paths, GUIDE_SCRIPT, GUIDE_SCRIPT)
    assert "two scripts are called 'api-backend'" in refusal(paths)


def test_commands_that_others_could_write_are_refused_with_the_remedy(paths: Paths) -> None:
    write_scripts(paths, GUIDE_SCRIPT)
    os.chmod(paths.scripts, 0o666)
    assert f"chmod go-w {paths.scripts}" in refusal(paths)
    os.chmod(paths.scripts, 0o644)
    os.chmod(paths.etc, 0o777)
    assert f"chmod go-w {paths.etc}" in refusal(paths)


def test_a_symlink_or_a_folder_in_place_of_scripts_json_is_refused(paths: Paths, root: Path) -> None:
    (root / "elsewhere.json").write_text("[]", encoding="utf-8")
    os.symlink(root / "elsewhere.json", paths.scripts)
    assert "symbolic link" in refusal(paths)
    os.unlink(paths.scripts)
    os.mkdir(paths.scripts)
    assert "not a regular file" in refusal(paths)


@pytest.mark.skipif(os.geteuid() != 0, reason="giving a file away needs root")
def test_a_scripts_json_of_another_user_is_refused(paths: Paths) -> None:
    write_scripts(paths, GUIDE_SCRIPT)
    os.chown(paths.scripts, 65534, 65534)
    assert f"chown root {paths.scripts}" in refusal(paths)


def test_saving_keeps_owner_and_mode_and_round_trips(paths: Paths) -> None:
    scripts = (parse_script({**GUIDE_SCRIPT, "after": [], "limits": {"as": 1 << 30}, "env": {"A": "1"}}),)
    save_scripts(paths, scripts)
    os.chmod(paths.scripts, 0o640)
    save_scripts(paths, scripts)
    assert os.stat(paths.scripts).st_mode & 0o777 == 0o640
    assert load_scripts(paths) == scripts
    assert [name for name in os.listdir(paths.etc) if "new" in name] == []
    text = Path(paths.scripts).read_text(encoding="utf-8")
    assert '\n    "autoRestart": true,' in text


def test_a_failed_save_changes_nothing(paths: Paths) -> None:
    save_scripts(paths, (parse_script(GUIDE_SCRIPT),))
    before = Path(paths.scripts).read_bytes()
    code = (
        "import os, resource, sys, signal\n"
        "from orionagent.config import *\n"
        "from orionagent.paths import Paths\nfrom orionagent.errors import ConfigError\n"
        "signal.signal(signal.SIGXFSZ, signal.SIG_IGN)\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (64, 64))\n"
        "scripts = [parse_script({'name': f's{i}', 'command': 'true'}) for i in range(9)]\n"
        "try: save_scripts(Paths(sys.argv[1]), scripts)\n"
        "except ConfigError as error: print(error.message)\n"
    )
    result = subprocess.run([sys.executable, "-c", code, paths.root], capture_output=True, text=True, check=True)
    assert "nothing was changed" in result.stdout
    assert Path(paths.scripts).read_bytes() == before
    assert sorted(os.listdir(paths.etc)) == ["scripts.json"]


def test_config_json_is_written_for_its_owner_alone_and_hides_its_token_in_messages(paths: Paths) -> None:
    config = AgentConfig(token="secret-token", apiUrl="http://127.0.0.1:3001")
    save_agent_config(paths, config)
    assert os.stat(paths.config).st_mode & 0o777 == 0o600
    assert load_agent_config(paths) == config
    assert "secret" not in repr(config)


@pytest.mark.parametrize(
    ("url", "base"),
    [
        ("https://api.orion.dev", "https://api.orion.dev/api/v1"),
        ("https://api.orion.dev/api/v1/", "https://api.orion.dev/api/v1"),
        ("http://localhost:3001", "http://localhost:3001/api/v1"),
        ("http://[::1]:3001", "http://[::1]:3001/api/v1"),
    ],
)
def test_an_origin_and_the_versioned_address_mean_the_same(url: str, base: str) -> None:
    assert api_base(AgentConfig(apiUrl=url)) == base


@pytest.mark.parametrize("url", ["http://api.orion.dev", "ftp://x", "api.orion.dev", "https://u:p@host", ""])
def test_an_address_that_would_leak_or_lead_nowhere_is_refused(url: str) -> None:
    with pytest.raises(ConfigError):
        api_base(AgentConfig(apiUrl=url))


def test_plain_http_elsewhere_needs_a_word_of_consent() -> None:
    config = AgentConfig(apiUrl="http://10.0.0.1", allowInsecure=True)
    assert api_base(config) == "http://10.0.0.1/api/v1"


def test_folder_user_and_group_of_an_added_script_must_exist(root: Path) -> None:
    script = parse_script({**GUIDE_SCRIPT, "cwd": str(root)})
    check_script_target(script)
    for change in ({"cwd": "/no/such/folder"}, {"user": "nobody-here"}, {"group": "nobody-here"}):
        with pytest.raises(ConfigError, match=str(next(iter(change.values())))):
            check_script_target(parse_script({**GUIDE_SCRIPT, "cwd": str(root), **change}))


def test_environment_files_are_read_as_people_write_them(root: Path) -> None:
    file = root / "env"
    file.write_text("# c\n\nexport A=1\nB='two words'\nC=a=b\n", encoding="utf-8")
    assert read_env_file(str(file)) == {"A": "1", "B": "two words", "C": "a=b"}
    file.write_text("A=1\nnonsense\n", encoding="utf-8")
    with pytest.raises(ConfigError, match="line 2"):
        read_env_file(str(file))


def test_a_source_token_is_read_where_there_is_one(root: Path) -> None:
    assert load_source_token(str(root)) is None
    (root / ".orion").mkdir()
    (root / ".orion" / "config.json").write_text('{"token": "t", "apiUrl": "https://x/api/v1"}', encoding="utf-8")
    assert load_source_token(str(root)) == "t"
