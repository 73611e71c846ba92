"""The command table over a real socket: what each command asks of the parts behind it."""

import msgpack
import pytest

from orionagent.handlers import MAX_FREE_SOURCES, MAX_LOG_BYTES
from orionagent.paths import Paths
from tests.ipc.stand_ins import make_entry, serving


def test_a_log_entry_reaches_the_shipper_with_its_tags_and_metadata_and_without_its_secrets(paths: Paths) -> None:
    with serving(paths) as fixture, fixture.connect() as talk:
        reply = talk.ask(
            cmd="log",
            level="warn",
            message="the token is hunter2",
            tags=["release", "hunter2"],
            metadata={"deep": [{"secret": "hunter2"}], "count": 3},
        )
        (batch,) = fixture.entries.batches
    assert reply == {"ok": True, "data": {"seq": 1}}
    assert (batch.source, batch.stream, batch.levels) == ("cli", "cli", "warn")
    assert batch.messages == ["the token is [redacted]"]
    assert batch.timestamp == "2023-11-14T22:13:20.500Z"
    assert batch.extras[0].tags == ["release", "[redacted]"]
    assert batch.extras[0].metadata == {"deep": [{"secret": "[redacted]"}], "count": 3}


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"level": "warning", "message": "x"}, "unknown level 'warning'; did you mean warn?"),
        ({"level": "info"}, "no message given"),
        ({"level": "info", "message": "x", "metdata": {}}, "did you mean metadata?"),
        ({"level": "info", "message": "x" * (MAX_LOG_BYTES + 1)}, "split it"),
        ({"level": "info", "message": "x", "metadata": {"a": "x" * MAX_LOG_BYTES}}, "send less"),
        ({"level": "info", "message": "x", "source": ""}, "printable"),
        ({"level": "info", "message": "x", "source": "a\nb"}, "printable"),
        ({"level": "info", "message": "x", "source": "s" * 129}, "128"),
        ({"level": "info", "message": 5}, "str"),
        ({"level": "info", "message": "x", "tags": "a,b"}, "array"),
    ],
)
def test_a_log_entry_that_cannot_be_taken_is_refused_and_nothing_is_kept(
    fields: dict[str, object], words: str, paths: Paths
) -> None:
    with serving(paths) as fixture, fixture.connect() as talk:
        reply = talk.ask(cmd="log", **fields)
        assert fixture.entries.batches == []
    assert (reply["ok"], reply["code"]) == (False, "bad-request")
    assert words in reply["error"]


@pytest.mark.parametrize("value", [msgpack.ExtType(5, b"x"), {("a", "b"): 1}, {None: 1}], ids=repr)
def test_metadata_that_json_cannot_carry_never_reaches_the_buffer(value: object, paths: Paths) -> None:
    with serving(paths) as fixture, fixture.connect() as talk:
        reply = talk.ask_rpc(1, "log", ["info", "x", "cli", [], {"odd": value}])
        kept = fixture.entries.batches
        assert talk.ask_rpc(2, "ping", [])[3]["pong"]
    assert (reply[2] or {}).get("code") == "bad-request"
    assert kept == []


def test_sources_out_of_thin_air_are_bounded_and_those_of_scripts_are_not(paths: Paths) -> None:
    with serving(paths) as fixture, fixture.connect() as talk:
        for number in range(MAX_FREE_SOURCES):
            assert talk.ask(cmd="log", level="info", message="x", source=f"s{number}")["ok"]
        assert talk.ask(cmd="log", level="info", message="x", source="one-more")["code"] == "busy"
        assert talk.ask(cmd="log", level="info", message="x", source="s0")["ok"]
        assert talk.ask(cmd="log", level="info", message="x")["ok"]
        assert talk.ask(cmd="log", level="info", message="x", source="api-backend-source")["ok"]


def test_status_carries_machine_scripts_link_and_buffer(paths: Paths) -> None:
    with serving(paths) as fixture, fixture.connect() as talk:
        data = talk.ask(cmd="status")["data"]
    assert data["host"]["cpu"] == {"percent": 12.5}
    assert data["uptimeSeconds"] == 42.0
    assert data["link"]["clockSkewSeconds"] == 0.25
    assert data["buffer"]["memoryOnly"] is False


def test_the_daemon_renders_status_for_those_who_want_text(paths: Paths) -> None:
    with serving(paths) as fixture, fixture.connect() as talk:
        plain = talk.ask(cmd="status", render=True)["data"]["text"]
        coloured = talk.ask(cmd="status", render=True, color=True, columns=80)["data"]["text"]
    assert "api-backend" in plain
    assert "\x1b" not in plain
    assert "\x1b[" in coloured


def test_a_script_is_added_changed_and_removed(paths: Paths) -> None:
    with serving(paths) as fixture, fixture.connect() as talk:
        added = talk.ask(cmd="script:add", name="web", command="sleep 1", cwd="/tmp", autoRestart=False)
        again = talk.ask(cmd="script:add", name="web", command="sleep 1", cwd="/tmp")
        talk.ask(cmd="script:update", name="web", fields={"maxRestarts": 9})
        shown = talk.ask(cmd="script:show", name="web")["data"]["definition"]
        removed = talk.ask(cmd="script:remove", name="web")
    assert added["data"]["name"] == "web"
    assert again["code"] == "exists"
    assert (shown["maxRestarts"], shown["autoRestart"]) == (9, False)
    assert removed["data"] == {"name": "web"}


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"name": "web", "comand": "x"}, "command"),
        ({"name": "Web!", "command": "x"}, "name"),
        ({"name": "web"}, "command"),
    ],
)
def test_a_script_that_cannot_be_is_refused_by_its_rule(fields: dict[str, object], words: str, paths: Paths) -> None:
    with serving(paths) as fixture, fixture.connect() as talk:
        reply = talk.ask(cmd="script:add", **fields)
        assert list(fixture.scripts.known) == ["api-backend"]
    assert reply["ok"] is False
    assert reply["code"] in ("bad-request", "config")
    assert words in reply["error"]


def test_an_update_without_fields_is_refused(paths: Paths) -> None:
    with serving(paths) as fixture, fixture.connect() as talk:
        assert talk.ask(cmd="script:update", name="api-backend", fields={})["code"] == "bad-request"


def test_tail_gives_the_last_lines_of_a_script_of_a_source_or_of_all(paths: Paths) -> None:
    with serving(paths) as fixture, fixture.connect() as talk:
        fixture.entries.past = [make_entry(1, "one"), make_entry(2, "two"), make_entry(3, "three") | {"source": "cli"}]
        of_script = talk.ask(cmd="logs:tail", name="api-backend", lines=1)["data"]["entries"]
        of_source = talk.ask(cmd="logs:tail", name="cli")["data"]["entries"]
        of_all = talk.ask(cmd="logs:tail")["data"]["entries"]
        unknown = talk.ask(cmd="logs:tail", name="nobody")
    assert [entry["message"] for entry in of_script] == ["two"]
    assert [entry["message"] for entry in of_source] == ["three"]
    assert [entry["seq"] for entry in of_all] == [1, 2, 3]
    assert (unknown["code"], unknown["error"]) == ("not-found", "Script not found: nobody")


def test_a_follower_is_told_where_the_past_ends(paths: Paths) -> None:
    with serving(paths) as fixture, fixture.connect() as talk:
        fixture.entries.past = [make_entry(number, "old") for number in range(3)]
        talk.send(b'{"cmd":"logs:tail","follow":true}\n')
        past = [talk.read_line()["data"] for _ in range(3)]
        fixture.entries.followers[0].put(make_entry(3, "new"))
        new = talk.read_line()["data"]
    assert [(item["entry"]["seq"], item["pastLeft"]) for item in past] == [(0, 2), (1, 1), (2, 0)]
    assert (new["entry"]["seq"], "pastLeft" in new) == (3, False)


def test_a_follower_gets_the_past_then_what_comes_and_word_of_what_it_missed(paths: Paths) -> None:
    with serving(paths) as fixture, fixture.connect() as talk:
        talk.send(b'{"cmd":"logs:tail","follow":true,"id":5}\n')
        past = talk.read_line()
        follower = fixture.entries.followers[0]
        for number in range(1001):
            follower.put(make_entry(number, f"line {number}"))
        missed, first = talk.read_line(), talk.read_line()
    assert follower.closed.wait(20)
    assert (past["id"], past["data"]["entry"]["message"]) == (5, "ready")
    assert missed["data"]["entry"]["message"].startswith("1 entries are not shown")
    assert first["data"]["entry"]["message"] == "line 1"


def test_flush_and_reload_answer_with_what_they_did(paths: Paths) -> None:
    with serving(paths) as fixture, fixture.connect() as talk:
        flushed = talk.ask(cmd="buffer:flush")["data"]
        reloaded = talk.ask(cmd="reload")["data"]
    assert (flushed["sent"], flushed["link"]["state"]) == (3, "connected")
    assert reloaded["added"] == ["web"]
