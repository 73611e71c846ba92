"""The guide's examples, word for word over a raw socket."""

import socket

import pytest

from orionagent.paths import Paths
from tests.ipc.stand_ins import serving

EXAMPLES = (
    '{ "cmd": "script:start", "name": "api-backend" }',
    '{ "cmd": "script:list" }',
    '{ "cmd": "status" }',
    '{ "cmd": "log", "level": "info", "message": "Deploy done" }',
)


@pytest.mark.parametrize("example", EXAMPLES)
def test_an_example_of_the_guide_is_answered_with_ok_and_data(example: str, paths: Paths) -> None:
    with serving(paths) as fixture, fixture.connect() as caller:
        caller.send(example.encode() + b"\n")
        reply = caller.read_line()
    assert set(reply) == {"ok", "data"}
    assert reply["ok"] is True
    assert isinstance(reply["data"], dict)


def test_all_examples_on_one_connection_are_answered_in_their_order(paths: Paths) -> None:
    with serving(paths) as fixture, fixture.connect() as caller:
        caller.send("".join(f"{example}\n" for example in EXAMPLES).encode())
        started, listed, status, logged = (caller.read_line()["data"] for _ in EXAMPLES)
    assert started["state"] == "running"
    assert [row["name"] for row in listed["scripts"]] == ["api-backend"]
    assert status["hostname"] == "box"
    assert logged == {"seq": 1}


def test_an_unknown_script_gets_the_guide_s_words(paths: Paths) -> None:
    with serving(paths) as fixture, fixture.connect() as caller:
        near = caller.ask(cmd="script:start", name="api-backnd")
        far = caller.ask(cmd="script:stop", name="zzz")
    assert near == {
        "ok": False,
        "error": "Script not found: api-backnd; did you mean api-backend?",
        "code": "not-found",
    }
    assert far["error"].startswith("Script not found")


def test_a_caller_that_closes_its_sending_half_still_gets_every_answer(paths: Paths) -> None:
    with serving(paths) as fixture, fixture.connect() as caller:
        caller.send("".join(f"{example}\n" for example in EXAMPLES).encode())
        caller.socket.shutdown(socket.SHUT_WR)
        replies = [caller.read_line() for _ in EXAMPLES]
        assert caller.is_closed()
    assert all(reply["ok"] for reply in replies)
