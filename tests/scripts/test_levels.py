"""Levels are told by the words at a line's start."""

import pytest

from orionagent.scripts.levels import LevelReader, kind_of, level_of, number_level, word_level

NAMED = [
    ("ERROR disk full", "error"),
    ("[ERROR] disk full", "error"),
    ("error: disk full", "error"),
    ("Error while reading", "error"),
    ("\x1b[31mERROR\x1b[0m disk full", "error"),
    ("WARNING:root:careful", "warn"),
    ("INFO:     Started server process", "info"),
    ("Alert: the door is open", "fatal"),
    ("CRITICAL no fuel", "fatal"),
    ("2026-01-01T00:00:00Z ERROR boom", "error"),
    ("2026-01-01T00:00:00.123Z DEBUG x", "debug"),
    ("2026-01-01 00:00:00,123 - my.name - WARNING - hi", "warn"),
    ("2026-01-01 00:00:00,123 [main] ERROR com.example.Foo - hi", "error"),
    ("[2026-01-01 00:00:00 +0000] [123] [INFO] Starting gunicorn", "info"),
    ("2026/01/01 00:00:00 [error] 123#0: *1 open() failed", "error"),
    ("[Wed Oct 11 14:32:52.123 2000] [core:error] [pid 1] x", "error"),
    ("2026-01-01 00:00:00.000 UTC [1234] FATAL:  x", "fatal"),
    ("2026-01-01T00:00:00.123Z ERROR 1234 --- [main] c.e.Foo : x", "error"),
    ("[2026-01-01T00:00:00Z WARN crate] x", "warn"),
    ("[01-Jan-2026 00:00:00] NOTICE: fpm is running", "info"),
    ("[12:00:00 DBG] serilog", "debug"),
    ("[   12.345678] warning: tainted", "warn"),
    ("1700000000.123 warn x", "warn"),
    ("E0101 00:00:00.000000 1 x.go:1] klog", "error"),
    ("W, [2026-01-01T00:00:00.1 #12]  WARN -- : ruby", "warn"),
    ("level=error msg=x", "error"),
    ('time="2026-01-01T00:00:00Z" level=warning msg="x"', "warn"),
    ("ts=2026-01-01T00:00:00Z caller=main.go:1 level=debug msg=x", "debug"),
    ("<3>kernel trouble", "error"),
    ("<30>daemon info", "info"),
]
UNNAMED = [
    "hello",
    "",
    "3 errors found",
    "0 error(s), 2 warning(s)",
    "404 error page served",
    "information desk",
    "Alert sent to nobody",
    "error_count=3",
    "debug=True",
    "errors.txt",
    "error.log rotated",
    "the ERROR stands in the middle",
    "2026-01-01T00:00:00Z nothing to see",
]


@pytest.mark.parametrize(("line", "level"), NAMED)
def test_a_level_word_at_the_start_is_the_level(line: str, level: str) -> None:
    assert level_of(line) == level


@pytest.mark.parametrize("line", UNNAMED)
def test_a_line_that_only_talks_about_errors_has_no_level(line: str) -> None:
    assert level_of(line) is None


def test_reading_many_lines_gives_the_same_as_reading_each() -> None:
    reader = LevelReader("verbose")
    lines = [line for line, _ in NAMED] + UNNAMED
    for copies in (1, 10, 10, 10):
        levels = reader.read(lines * copies).levels
        assert levels == [level_of(line) or "verbose" for line in lines] * copies


@pytest.mark.parametrize("stamp", ["2026-01-01T00:00:00.123Z", "2026-01-01T00:00:{0:09.6f}Z"])
def test_a_stream_whose_heads_repeat_is_read_by_its_heads_to_the_same_end(stamp: str) -> None:
    words = ("INFO ", "ERROR", "WARN ", "DEBUG", "nonsense", "errors")
    lines = [f"{stamp.format(i / 100)} {words[i % 6]} web request {i}" for i in range(500)]
    lines[77] = "a line of another shape"
    lines[78] = "<3>another"
    lines[79] = "ERRO"
    expected = [level_of(line) or "verbose" for line in lines]
    reader = LevelReader("verbose")
    for _ in range(3):
        assert reader.read(lines).levels == expected


def test_plain_lines_cost_no_look_at_each() -> None:
    assert LevelReader("warn").read(["the quick brown fox"] * 100).levels == "warn"


@pytest.mark.parametrize("line", [line for line, _ in NAMED])
def test_the_first_four_characters_never_rule_out_a_line_that_has_a_level(line: str) -> None:
    assert kind_of(line[:4])


def test_numbers_and_names_of_other_loggers_are_known() -> None:
    assert [number_level(n) for n in (10, 20, 30, 40, 50, 60)] == [
        "trace",
        "debug",
        "info",
        "warn",
        "error",
        "fatal",
    ]
    assert [number_level(n) for n in (0, 3, 4, 6, 7, 35, 99)] == [
        "fatal",
        "error",
        "warn",
        "info",
        "debug",
        "info",
        "fatal",
    ]
    assert [word_level(w) for w in ("Warning", "CRITICAL", "notice", "inf", "nonsense")] == [
        "warn",
        "fatal",
        "info",
        "info",
        None,
    ]
