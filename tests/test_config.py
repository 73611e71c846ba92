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
    read_source_file,
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
        ({"env": {"PORT": 3000}}, "[0].env"),
        ({"env": {"A": "x\0y"}}, "NUL"),
        ({"autorestart": True}, "did you mean 'autoRestart'?"),
        ({"stopSignal": "STOP"}, "stopSignal"),
        ({"stopTimeout": 10**12}, "stopTimeout"),
        ({"source": "All of it"}, "source"),
        ({"name": "all"}, "means every source"),
        ({"user": ""}, "user"),
        ({"limits": {"nofile": -1}}, "limits.nofile"),
        ({"after": ["api-backend"]}, "another script"),
        ({"nice": 40}, "nice"),
        ({"maxRestarts": True}, "[0].maxRestarts"),
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


def test_a_source_token_is_read_where_there_is_one(root: Path) -> None:
    assert load_source_token(str(root)) is None
    (root / ".orion").mkdir()
    (root / ".orion" / "config.json").write_text('{"token": "t", "apiUrl": "https://x/api/v1"}', encoding="utf-8")
    assert load_source_token(str(root)) == "t"


def lay(path: Path, token: str, uid: int) -> None:
    """Make folder and token file of an application, all of it one user's."""
    path.mkdir(parents=True)
    (path / "config.json").write_text(f'{{"token": "{token}"}}', encoding="utf-8")
    for each in (path.parent, path, path / "config.json"):
        os.chown(each, uid, uid)


@pytest.mark.skipif(os.geteuid() != 0, reason="giving a file away needs root")
@pytest.mark.parametrize("planted", [".orion", ".orion/config.json"])
@pytest.mark.parametrize(("maker", "owner"), [(1001, 1002), (1001, 0), (0, 0)])
def test_nobody_sends_under_a_token_that_a_link_of_theirs_leads_to(
    planted: str, maker: int, owner: int, root: Path
) -> None:
    lay(root / "b" / ".orion", "of-b", owner)
    folder = root / "a"
    (folder / planted).parent.mkdir(parents=True)
    (folder / planted).symlink_to(root / "b" / planted)
    os.chown(folder, maker, 1001)
    folder.chmod(0o2775)
    assert load_source_token(str(folder)) is None
    with pytest.raises(ConfigError, match=f"refusing {folder / planted}: it is a symbolic link"):
        read_source_file(str(folder))


@pytest.mark.skipif(os.geteuid() != 0, reason="giving a file away needs root")
def test_a_hard_link_to_another_s_token_is_none_either(root: Path) -> None:
    lay(root / "b" / ".orion", "of-b", 1002)
    lay(root / "a" / ".orion", "of-a", 1001)
    path = root / "a" / ".orion" / "config.json"
    path.unlink()
    path.hardlink_to(root / "b" / ".orion" / "config.json")
    assert load_source_token(str(root / "a")) is None


@pytest.mark.skipif(os.geteuid() != 0, reason="giving a file away needs root")
@pytest.mark.parametrize("uid", [0, 1001])
@pytest.mark.parametrize("linked", [".orion", ".orion/config.json"])
def test_an_owner_s_links_lead_to_the_owner_s_own_token(linked: str, uid: int, root: Path) -> None:
    lay(root / "kept" / ".orion", "mine", uid)
    (root / "a" / linked).parent.mkdir(parents=True)
    (root / "a" / linked).symlink_to(root / "kept" / linked)
    os.chown(root / "a", uid, uid)
    assert load_source_token(str(root / "a")) == "mine"


@pytest.mark.skipif(os.geteuid() != 0, reason="giving a file away needs root")
@pytest.mark.parametrize(("folders", "files"), [(1001, 0), (0, 1001), (0, 0)])
def test_a_token_that_lies_in_the_folder_itself_is_taken_whosever_it_is(folders: int, files: int, root: Path) -> None:
    lay(root / "a" / ".orion", "t", files)
    os.chown(root / "a", folders, 1001)
    (root / "a").chmod(0o2775)
    assert load_source_token(str(root / "a")) == "t"


def test_only_a_token_that_can_travel_is_read_and_nothing_makes_the_reader_wait(root: Path) -> None:
    folder = root / ".orion"
    folder.mkdir()
    for content in ("not json", "[]", '{"token": ""}', '{"token": 7}', '{"token": "a b"}', '{"token": "a\\n"}'):
        (folder / "config.json").write_text(content, encoding="utf-8")
        assert load_source_token(str(root)) is None
    (folder / "config.json").unlink()
    os.mkfifo(folder / "config.json")
    assert load_source_token(str(root)) is None


HAND_WRITTEN = """[
  {
    "command": "node a.js",
    "name": "a",
    "stopSignal": "SIGTERM",
    "maxRestarts": 5,
    "env": {"Z": "1", "A": "2"}
  },
  {"name": "b", "command": "sleep 1"}
]
"""


def test_a_change_keeps_what_a_person_wrote_elsewhere(paths: Paths) -> None:
    Path(paths.scripts).write_text(HAND_WRITTEN, encoding="utf-8")
    a, b = load_scripts(paths)
    fields = json.loads(HAND_WRITTEN)
    changed = parse_script({**fields[0], "maxRestarts": 9, "user": "nobody"})
    save_scripts(paths, (changed, b, parse_script({"name": "c", "command": "true"})))
    first, second, third = json.loads(Path(paths.scripts).read_text())
    assert list(first.items()) == [
        ("command", "node a.js"),
        ("name", "a"),
        ("stopSignal", "SIGTERM"),
        ("maxRestarts", 9),
        ("env", {"Z": "1", "A": "2"}),
        ("user", "nobody"),
    ]
    assert list(first["env"]) == ["Z", "A"]
    assert second == {"name": "b", "command": "sleep 1"}
    assert list(third) == ["name", "command", "autoRestart", "maxRestarts", "backoffBase", "captureOutput"]
    save_scripts(paths, (a, b))
    assert load_scripts(paths) == (a, b)


def test_a_key_set_back_to_its_default_says_so(paths: Paths) -> None:
    write_scripts(paths, {"name": "a", "command": "x", "maxRestarts": 9, "user": "nobody"})
    save_scripts(paths, (parse_script({"name": "a", "command": "x"}),))
    assert json.loads(Path(paths.scripts).read_text()) == [{"name": "a", "command": "x", "maxRestarts": 5}]


def test_a_file_that_is_malformed_now_is_not_overwritten(paths: Paths) -> None:
    write_scripts(paths, GUIDE_SCRIPT)
    known = load_scripts(paths)
    Path(paths.scripts).write_text("[{", encoding="utf-8")
    with pytest.raises(ConfigError, match="line 1"):
        save_scripts(paths, known)
    assert Path(paths.scripts).read_text(encoding="utf-8") == "[{"


def test_two_scripts_of_one_name_are_not_written(paths: Paths) -> None:
    write_scripts(paths, GUIDE_SCRIPT)
    known = load_scripts(paths)
    with pytest.raises(ConfigError, match="two scripts"):
        save_scripts(paths, known * 2)
    assert load_scripts(paths) == known


def test_a_file_that_others_can_write_is_not_written_either(paths: Paths) -> None:
    write_scripts(paths, GUIDE_SCRIPT)
    os.chmod(paths.scripts, 0o666)
    with pytest.raises(ConfigError, match="chmod go-w"):
        save_scripts(paths, ())


@pytest.mark.parametrize("mode", [0o1777, 0o775, 0o757])
def test_a_folder_that_others_can_write_is_refused_sticky_or_not(paths: Paths, mode: int) -> None:
    write_scripts(paths, GUIDE_SCRIPT)
    os.chmod(paths.etc, mode)
    assert f"sudo chmod go-w {paths.etc}" in refusal(paths)


def test_the_remedy_for_a_symlink_works_as_it_is_printed(paths: Paths, root: Path) -> None:
    write_scripts(paths, GUIDE_SCRIPT)
    os.rename(paths.scripts, root / "elsewhere.json")
    os.symlink(root / "elsewhere.json", paths.scripts)
    remedy = refusal(paths).partition("run: sudo ")[2]
    subprocess.run(["/bin/sh", "-c", remedy], check=True)
    assert len(load_scripts(paths)) == 1


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ('[{"name": "a", "name": "b", "command": "x"}]', "'name' stands twice"),
        ('[{"name": "a", "command": "x", "nice": NaN}]', "NaN"),
        ("[" * 100_000, "not JSON"),
        ("\ufeff[]]", "column 3"),
        ("", "line 1, column 1"),
        ("{}", "expected array, got object"),
        ("[7]", "[0]: expected object, got int"),
    ],
)
def test_what_is_no_list_of_scripts_is_refused_with_its_place(paths: Paths, text: str, expected: str) -> None:
    Path(paths.scripts).write_text(text, encoding="utf-8")
    assert expected in refusal(paths)


def test_text_in_another_encoding_names_the_line(paths: Paths) -> None:
    Path(paths.scripts).write_bytes(b'[\n{"name": "a", "command": "\xe9"}]')
    assert "line 2 is not UTF-8" in refusal(paths)


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        ({"tokn": "x"}, "did you mean 'token'?"),
        ({"token": "a b"}, "token must be"),
        ({"heartbeatInterval": 30}, "milliseconds"),
        ({"hostname": "a b"}, "hostname"),
        ({"proxy": "socks5://x"}, "proxy"),
        ({"proxy": "http://["}, "proxy"),
        ({"caFile": "ca.pem"}, "absolute"),
        ({"redact": ["ok", "("]}, "redact[1]"),
        ({"redact": [".*"]}, "redact[0]"),
        ({"apiUrl": "http://["}, "apiUrl"),
        ({"apiUrl": "https://x:99999"}, "apiUrl"),
        ({"apiUrl": "https://x/ y"}, "apiUrl"),
        ({"bufferMaxEntries": 0}, "bufferMaxEntries"),
    ],
)
def test_a_wrong_server_setting_is_named_and_the_token_is_not(
    paths: Paths, fields: dict[str, Any], expected: str
) -> None:
    Path(paths.config).write_text(json.dumps(fields), encoding="utf-8")
    with pytest.raises(ConfigError) as caught:
        load_agent_config(paths)
    assert expected in caught.value.message
    assert "a b" not in caught.value.message or "hostname" in expected


def test_saving_the_server_configuration_keeps_the_order_of_its_keys_and_a_symlink(paths: Paths, root: Path) -> None:
    real = root / "managed.json"
    real.write_text('{"project": "p", "heartbeatInterval": 30000, "token": "old"}', encoding="utf-8")
    real.chmod(0o640)
    os.symlink(real, paths.config)
    save_agent_config(paths, AgentConfig(token="new", project="p", hostname="h"))
    assert os.path.islink(paths.config)
    assert real.stat().st_mode & 0o777 == 0o640
    assert list(json.loads(real.read_text()).items()) == [
        ("project", "p"),
        ("heartbeatInterval", 30000),
        ("token", "new"),
        ("hostname", "h"),
    ]


def test_a_script_does_not_show_its_environment_when_printed() -> None:
    assert "hunter2" not in repr(parse_script({**GUIDE_SCRIPT, "env": {"PASSWORD": "hunter2"}}))
