"""What users other than root may do: each test's caller is a process that has given up its uid."""

import grp
import json
import os
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import gevent
import pytest

from orionagent.handlers import MAX_FREE_SOURCES, MAX_STRANGERS_SOURCES, make_commands
from orionagent.ipc.access import Access
from orionagent.ipc.server import KEPT_FOR_OPERATORS, LOG_BURST, MOST_CONNECTIONS
from orionagent.paths import Paths
from tests.ipc.stand_ins import Fixture, serving
from tests.ipc.talk import Talk

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="only root can become somebody else")

NOBODY, NOGROUP = 65534, 65534
# Any group of this machine that is neither root's nor nobody's own.
OPERATORS = next(group for group in grp.getgrall() if group.gr_gid not in (0, NOGROUP))

# Becomes nobody once everything is imported: the interpreter itself may lie where only root can read.
BECOME_NOBODY = f"""
import json, os, socket, sys
path, work, groups = json.loads(sys.stdin.readline())
os.setgroups(groups)
os.setgid({NOGROUP})
os.setuid({NOBODY})
"""

# Sends every request and prints the answers.
CALLER = """
with socket.socket(socket.AF_UNIX) as connection:
    connection.settimeout(20)
    connection.connect(path)
    answers = connection.makefile("rb")
    for request in work:
        connection.sendall(json.dumps(request).encode() + b"\\n")
        print(answers.readline().decode(), end="")
"""

# Opens more connections than are to be had, tells how many were served, and keeps them until told to go.
CROWD = """
connections = []
for _ in range(work):
    connection = socket.socket(socket.AF_UNIX)
    connection.settimeout(20)
    connection.connect(path)
    connection.sendall(b'{"cmd":"ping"}\\n')
    connections.append((connection, json.loads(connection.makefile("rb").readline())))
print(json.dumps([answer.get("code", "ok") for _, answer in connections]), flush=True)
sys.stdin.readline()
"""

FIELDS: dict[str, dict[str, Any]] = {
    "log": {"level": "info", "message": "hello"},
    "script:add": {"name": "evil", "command": "id"},
    "script:update": {"name": "api-backend", "fields": {"command": "id"}},
    **{f"script:{verb}": {"name": "api-backend"} for verb in ("show", "start", "stop", "restart", "remove")},
}


@pytest.fixture
def fixture(paths: Paths) -> Iterator[Fixture]:
    os.chmod(paths.root, 0o755)
    with serving(paths, group_name=OPERATORS.gr_name) as found:
        yield found


@contextmanager
def stranger(program: str, path: str, work: object, *, groups: Sequence[int] = ()) -> Iterator["subprocess.Popen[str]"]:
    """Yield a process of nobody that runs `program`; ended in the end."""
    child = subprocess.Popen(
        [sys.executable, "-I", "-S", "-c", BECOME_NOBODY + program],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert child.stdin is not None
    child.stdin.write(json.dumps([path, work, list(groups)]) + "\n")
    child.stdin.flush()
    try:
        yield child
    finally:
        child.kill()
        child.communicate()


def ask_as_stranger(path: str, requests: Sequence[object], *, groups: Sequence[int] = ()) -> list[dict[str, Any]]:
    """Send requests as nobody and return the answers; the server goes on in this process meanwhile."""
    with stranger(CALLER, path, requests, groups=groups) as child:
        assert child.stdout is not None
        output = gevent.get_hub().threadpool.apply(child.stdout.read)
    return [json.loads(line) for line in output.splitlines()]


def outcomes(fixture: Fixture, *, groups: Sequence[int] = ()) -> dict[str, str]:
    """Return how every command of the table ends for nobody."""
    names = list(make_commands(fixture.services))
    answers = ask_as_stranger(fixture.path, [{"cmd": name, **FIELDS.get(name, {})} for name in names], groups=groups)
    return {name: answer.get("code", "ok") for name, answer in zip(names, answers, strict=True)}


def expected(fixture: Fixture, access: Access) -> dict[str, str]:
    return {
        name: "ok" if command.access <= access else "not-permitted"
        for name, command in make_commands(fixture.services).items()
    }


def test_a_user_without_rights_may_look_and_log_and_nothing_else(fixture: Fixture) -> None:
    assert outcomes(fixture) == expected(fixture, Access.EVERYONE)
    assert fixture.scripts.known["api-backend"]["phase"] == "stopped"
    assert "evil" not in fixture.scripts.known


def test_a_member_of_the_group_may_operate_but_not_change_definitions(fixture: Fixture) -> None:
    assert outcomes(fixture, groups=[54321, OPERATORS.gr_gid]) == expected(fixture, Access.OPERATOR)


def test_a_refusal_says_who_may_and_how(fixture: Fixture) -> None:
    start, add = ask_as_stranger(
        fixture.path, [{"cmd": "script:start", "name": "api-backend"}, {"cmd": "script:add", "name": "x"}]
    )
    assert "group orion" in start["error"]
    assert "sudo" in start["error"]
    assert "sudo" in add["error"]


def test_values_of_the_environment_are_for_owners_and_last_lines_for_operators(fixture: Fixture) -> None:
    show = {"cmd": "script:show", "name": "api-backend"}
    (looking,) = ask_as_stranger(fixture.path, [show])
    (operating,) = ask_as_stranger(fixture.path, [show], groups=[OPERATORS.gr_gid])
    with fixture.connect() as talk:
        owning = talk.ask(**show)
    seen = [answer["data"]["definition"]["env"]["TOKEN"] for answer in (looking, operating, owning)]
    assert seen == ["***", "***", "hunter2"]
    lines = [answer["data"]["lastLines"] for answer in (looking, operating, owning)]
    assert lines == [[], ["the last line"], ["the last line"]]


def test_a_user_who_takes_source_after_source_leaves_half_of_them_to_operators(fixture: Fixture) -> None:
    entry = {"cmd": "log", "level": "info", "message": "x"}
    taken = [{**entry, "source": f"s{number}"} for number in range(MAX_FREE_SOURCES)]
    answers = ask_as_stranger(fixture.path, [*taken, taken[0], entry])
    refused = [answer for answer in answers if not answer["ok"]]
    assert [answer["code"] for answer in refused] == ["busy"] * (MAX_FREE_SOURCES - MAX_STRANGERS_SOURCES)
    assert "operators" in refused[0]["error"]
    (operating,) = ask_as_stranger(fixture.path, [{**entry, "source": "deploy"}], groups=[OPERATORS.gr_gid])
    assert operating["ok"], operating
    with fixture.connect() as talk:
        owning = [talk.ask(**entry, source=f"root{n}").get("code", "ok") for n in range(MAX_STRANGERS_SOURCES)]
    assert owning == [*["ok"] * (MAX_STRANGERS_SOURCES - 1), "busy"]


def test_a_user_who_logs_without_pause_is_slowed_down_and_root_is_not(fixture: Fixture) -> None:
    calls = LOG_BURST * 3
    entry = {"cmd": "log", "level": "info", "message": "x"}
    codes = [answer.get("code", "ok") for answer in ask_as_stranger(fixture.path, [entry] * calls)]
    assert codes[:LOG_BURST] == ["ok"] * LOG_BURST
    assert "busy" in codes
    with fixture.connect() as talk:
        assert all(talk.ask(**entry)["ok"] for _ in range(10))


def test_a_crowd_of_users_without_rights_leaves_room_for_root(fixture: Fixture) -> None:
    room = MOST_CONNECTIONS - KEPT_FOR_OPERATORS
    with stranger(CROWD, fixture.path, room + 5) as child:
        assert child.stdout is not None
        codes = json.loads(gevent.get_hub().threadpool.apply(child.stdout.readline))
        assert codes == ["ok"] * room + ["busy"] * 5
        talks = [Talk(fixture.path) for _ in range(KEPT_FOR_OPERATORS)]
        assert all(talk.ask(cmd="script:start", name="api-backend")["ok"] for talk in talks)
        for talk in talks:
            talk.socket.close()
