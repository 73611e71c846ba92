"""A stream's bytes become entries."""

from typing import Any

import pytest

from orionagent.scripts.lines import Fed, LineSplitter
from orionagent.scripts.redact import Redactor
from orionagent.wire import Batch, Extra

NOW = "2026-01-01T00:00:00.000Z"


def splitter(**options: Any) -> LineSplitter:
    return LineSplitter("web", options.pop("stream", "stdout"), **options)


def feed(lines: LineSplitter, chunk: bytes, now_s: float = 0.0, **options: Any) -> Fed:
    return lines.feed(chunk, now_s, NOW, **options)


def all_of(chunk: bytes, **options: Any) -> Batch:
    fed = feed(splitter(**options), chunk, final=True)
    assert fed.batch is not None
    assert fed.consumed == len(chunk)
    return fed.batch


def levels_of(batch: Batch) -> list[str]:
    return [batch.levels] * len(batch) if isinstance(batch.levels, str) else list(batch.levels)


def metadata_of(batch: Batch, index: int) -> dict[str, Any]:
    return dict(batch.extras[index].metadata or {})


def test_complete_lines_are_delivered_and_an_unfinished_one_stays_in_the_stream() -> None:
    lines = splitter(offset=100)
    fed = feed(lines, b"one\ntwo\nthr")
    assert fed.batch is not None
    assert list(fed.batch.messages) == ["one", "two"]
    assert (fed.batch.source, fed.batch.stream, fed.batch.timestamp) == ("web", "stdout", NOW)
    assert (fed.consumed, fed.batch.offset, lines.offset, fed.hold_s) == (8, 108, 108, None)
    fed = feed(lines, b"three\n")
    assert fed.batch is not None
    assert list(fed.batch.messages) == ["three"]
    assert fed.batch.offset == 114


def test_an_unfinished_line_alone_covers_nothing_until_the_stream_ends() -> None:
    lines = splitter()
    assert feed(lines, b"no end") == Fed(batch=None, consumed=0, hold_s=None)
    fed = feed(lines, b"no end", final=True)
    assert fed.batch is not None
    assert list(fed.batch.messages) == ["no end"]
    assert (fed.consumed, fed.batch.offset) == (6, 6)
    assert feed(lines, b"", final=True) == Fed(batch=None, consumed=0, hold_s=None)


def test_plain_lines_take_the_streams_own_level() -> None:
    assert all_of(b"one\ntwo\n").levels == "info"
    assert all_of(b"one\ntwo\n", stream="stderr").levels == "error"
    assert all_of(b"one\ntwo\n", stream="stderr", stderr_level="warn").levels == "warn"


def test_a_level_word_wins_over_the_streams_level() -> None:
    batch = all_of(b"a\nWARN b\n2026-01-01T00:00:00Z DEBUG c\n", stream="stderr")
    assert levels_of(batch) == ["error", "warn", "debug"]


def test_empty_lines_nul_bytes_and_crlf_are_kept_as_documented() -> None:
    assert list(all_of(b"a\r\n\r\n\nb\x00c\n").messages) == ["a", "", "", "b\x00c"]


def test_undecodable_bytes_become_replacement_characters() -> None:
    assert list(all_of(b"a\xffb\n\xe2\x82\n\xc3\xa9\n").messages) == ["a\ufffdb", "\ufffd", "é"]


def test_a_progress_bar_shows_its_last_state_and_keeps_the_others() -> None:
    batch = all_of(b"10%\r20%\r30%\r\r\nnext\n")
    assert list(batch.messages) == ["30%", "next"]
    assert metadata_of(batch, 0) == {"overwritten": "10%\r20%"}
    assert list(batch.extras) == [0]


def test_json_lines_give_level_message_and_metadata() -> None:
    batch = all_of(
        b'{"level":"warn","msg":"careful","user":7}\n'
        b'{"level":50,"time":1,"msg":"boom"}\n'
        b'{"severity":"CRITICAL","message":"out"}\n'
        b'{"msg":"no level"}\n'
        b'{"level":"error","code":3}\n'
        b'{"level":"odd","msg":"x"}\n'
        b'{"neither":1}\n'
        b'{"broken": \n'
        b"[1,2]\n"
    )
    assert list(batch.messages) == [
        "careful",
        "boom",
        "out",
        "no level",
        '{"level":"error","code":3}',
        "x",
        '{"neither":1}',
        '{"broken": ',
        "[1,2]",
    ]
    assert levels_of(batch) == ["warn", "error", "fatal", "info", "error", "info", "info", "info", "info"]
    assert metadata_of(batch, 0) == {"user": 7}
    assert metadata_of(batch, 1) == {"time": 1}
    assert metadata_of(batch, 5) == {"level": "odd"}
    assert sorted(batch.extras) == [0, 1, 5]


def test_a_json_line_that_is_large_or_deep_stays_text() -> None:
    large = b'{"msg":"' + b"x" * 40_000 + b'"}'
    deep = b'{"msg":"x","a":' + b"[" * 5000 + b"]" * 5000 + b"}"
    assert [len(m) for m in all_of(large + b"\n" + deep + b"\n").messages] == [len(large), len(deep)]


def test_a_line_longer_than_the_limit_becomes_numbered_parts() -> None:
    lines = splitter(max_line_bytes=64)
    stream = b"ERROR " + b"x" * 150 + b" end\nnext\n"
    messages: list[str] = []
    levels: list[str] = []
    marks: list[Extra | None] = []
    position = 0
    while position < len(stream):
        fed = feed(lines, stream[position : position + 64])
        assert fed.batch is not None
        position += fed.consumed
        assert fed.batch.offset == position
        messages += fed.batch.messages
        levels += levels_of(fed.batch)
        marks += [fed.batch.extras.get(i) for i in range(len(fed.batch))]
    assert "".join(messages[:-1]) == stream[:-6].decode()
    assert messages[-1] == "next"
    assert set(levels[:-1]) == {"error"}
    assert [mark.partial for mark in marks[:-1] if mark] == [True] * (len(marks) - 1)
    assert [dict(mark.metadata or {}) for mark in marks[:-1] if mark] == [
        *({"part": n} for n in range(1, len(marks) - 1)),
        {"part": len(marks) - 1, "last": True},
    ]
    assert marks[-1] is None


def test_a_full_pipe_delivers_the_unfinished_line_as_a_part() -> None:
    lines = splitter()
    assert feed(lines, b"x" * 5000).consumed == 0
    fed = feed(lines, b"x" * 5000, full=True)
    assert fed.consumed == 5000
    assert fed.batch is not None
    assert fed.batch.extras[0].partial


def test_a_cut_never_breaks_a_character_or_a_crlf() -> None:
    for size in (64, 65, 66, 67):
        batch = all_of("é€😀".encode() * 100 + b"\n", max_line_bytes=size)
        assert "".join(batch.messages) == "é€😀" * 100
    lines = splitter(max_line_bytes=64)
    first = feed(lines, b"x" * 63 + b"\r")
    assert first.consumed == 63
    rest = feed(lines, b"\r\nnext\n")
    assert rest.batch is not None
    assert list(rest.batch.messages) == ["", "next"]


def test_a_chunk_larger_than_the_limit_is_taken_in_one_call() -> None:
    text = b"".join(b"line %d\n" % n for n in range(100_000))
    batch = all_of(text)
    assert len(batch) == 100_000
    assert batch.offset == len(text)


def test_secrets_are_gone_from_lines_parts_json_and_overwritten_states() -> None:
    batch = all_of(
        b"password=hunter2\n"
        b'{"level":"info","msg":"login","password":"hunter2"}\n'
        b"password=hunter2\rdone\n" + b"x " * 500 + b"password=hunter2 " + b"x " * 500 + b"\n",
        max_line_bytes=1024,
    )
    assert "hunter2" not in repr(batch)
    assert repr(batch).count("[redacted]") == 4


def test_a_cut_goes_before_a_word_that_a_secret_follows() -> None:
    for shift in range(80):
        text = b"x " * 450 + b"y" * shift + b" my_password=hunter2 " + b"x " * 500 + b"\n"
        assert "hunter" not in repr(all_of(text, max_line_bytes=1000))


def test_own_redaction_patterns_are_used() -> None:
    assert list(all_of(b"card 1234\n", redactor=Redactor([r"\d{4}"])).messages) == ["card [redacted]"]


@pytest.mark.parametrize("stream", ["stdout", "stderr"])
def test_the_offset_counts_bytes_not_characters(stream: str) -> None:
    assert all_of("é\n€\n".encode(), stream=stream).offset == 7
