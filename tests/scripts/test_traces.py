"""A stack trace is one entry, and waits no longer than it must."""

from typing import Any

import pytest

from orionagent.scripts.lines import HOLD_S, Fed, LineSplitter
from orionagent.scripts.traces import MAX_LINES

NOW = "2026-01-01T00:00:00.000Z"

PYTHON = """Traceback (most recent call last):
  File "a.py", line 1, in <module>
    f()
    ~^^
ValueError: bad"""
PYTHON_CHAINED = f"{PYTHON}\n\nDuring handling of the above exception, another exception occurred:\n\n{PYTHON}"
PYTHON_GROUP = """  + Exception Group Traceback (most recent call last):
  |   File "a.py", line 1, in <module>
  | ExceptionGroup: two (2 sub-exceptions)
  +-+---------------- 1 ----------------
    | ValueError: 1
    +------------------------------------"""
JAVA = """Exception in thread "main" java.lang.RuntimeException: boom
\tat com.example.Main.run(Main.java:12)
\tat com.example.Main.main(Main.java:5)
Caused by: java.io.IOException: no
\tat com.example.Io.read(Io.java:3)
\t... 2 more"""
NODE = """/srv/app.js:3
    throw new Error("boom");
    ^

Error: boom
    at f (/srv/app.js:3:11)
    at Module._compile (node:internal/modules/cjs/loader:1105:14) {
  code: 'ENOENT'
}

Node.js v18.1.0"""
NODE_SHORT = "TypeError: x is not a function\n    at f (/srv/app.js:3:11)"
GO = """panic: boom

goroutine 1 [running]:
main.f(...)
\t/srv/main.go:5
main.(*T).g(0xc000012345)
\t/srv/main.go:9 +0x1d
created by main.main in goroutine 1
\t/srv/main.go:12 +0x2a"""
RUBY = """a.rb:1:in `foo': boom (RuntimeError)
\tfrom a.rb:5:in `<main>'"""
RUBY_HIGHLIGHT = """a.rb:1:in '<main>': undefined method 'foo' for nil (NoMethodError)

nil.foo
   ^^^^
\tfrom a.rb:5:in '<main>'"""
DOTNET = """Unhandled exception. System.InvalidOperationException: boom
   at A.B() in /srv/a.cs:line 3
   --- End of inner exception stack trace ---
   at A.C() in /srv/a.cs:line 9"""

ALL = {
    "python": PYTHON,
    "chained python": PYTHON_CHAINED,
    "python group": PYTHON_GROUP,
    "java": JAVA,
    "node": NODE,
    "short node": NODE_SHORT,
    "go": GO,
    "ruby": RUBY,
    "ruby with highlight": RUBY_HIGHLIGHT,
    "dotnet": DOTNET,
}


def feed(lines: LineSplitter, text: str, now_s: float = 0.0, **options: Any) -> Fed:
    return lines.feed(text.encode(), now_s, NOW, **options)


def messages(fed: Fed) -> list[str]:
    return [] if fed.batch is None else list(fed.batch.messages)


@pytest.mark.parametrize("trace", ALL.values(), ids=ALL)
def test_a_trace_among_lines_is_one_entry_of_level_error(trace: str) -> None:
    fed = feed(LineSplitter("web", "stdout"), f"before\n{trace}\nafter\nmore\n")
    assert messages(fed) == ["before", trace, "after", "more"]
    assert fed.batch is not None
    assert list(fed.batch.levels) == ["info", "fatal" if trace is GO else "error", "info", "info"]
    assert fed.hold_s is None


@pytest.mark.parametrize("trace", ALL.values(), ids=ALL)
def test_a_trace_that_ends_with_the_stream_is_one_entry_even_without_a_last_newline(trace: str) -> None:
    assert messages(feed(LineSplitter("web", "stderr"), trace, final=True)) == [trace]
    assert messages(feed(LineSplitter("web", "stderr"), trace + "\n", final=True)) == [trace]


@pytest.mark.parametrize("trace", ALL.values(), ids=ALL)
def test_a_trace_that_arrives_byte_by_byte_is_one_entry(trace: str) -> None:
    stream = f"before\n{trace}\nafter\nmore\n"
    lines, seen, start = LineSplitter("web", "stdout"), [], 0
    for end in range(1, len(stream) + 1):
        fed = feed(lines, stream[start:end])
        start += fed.consumed
        seen += messages(fed)
    assert seen == ["before", trace, "after", "more"]


@pytest.mark.parametrize("trace", ALL.values(), ids=ALL)
def test_with_multiline_off_every_line_is_an_entry(trace: str) -> None:
    fed = feed(LineSplitter("web", "stdout", multiline=False), trace + "\n")
    assert messages(fed) == trace.split("\n")


def test_an_open_trace_stays_in_the_stream_for_a_tenth_of_a_second() -> None:
    lines = LineSplitter("web", "stdout")
    open_part = "\n".join(PYTHON.split("\n")[:3]) + "\n"
    fed = feed(lines, "before\n" + open_part, 10.0)
    assert messages(fed) == ["before"]
    assert (fed.consumed, fed.hold_s) == (7, HOLD_S)
    fed = feed(lines, open_part, 10.04)
    assert fed.batch is None
    assert fed.hold_s == pytest.approx(HOLD_S - 0.04)
    fed = feed(lines, open_part, 10.2)
    assert messages(fed) == [open_part.rstrip("\n")]
    assert fed.hold_s is None


def test_the_wait_is_not_prolonged_by_more_lines() -> None:
    lines = LineSplitter("web", "stdout")
    text = "Error: x\n"
    for step in range(4):
        fed = feed(lines, text, step * 0.03)
        assert fed.consumed == 0
        assert fed.hold_s == pytest.approx(HOLD_S - step * 0.03)
        text += "    at f (a.js:1:1)\n"
    assert messages(feed(lines, text, 0.09, expired=True)) == [text.rstrip("\n")]


def test_a_line_that_may_begin_a_trace_is_an_ordinary_one_when_nothing_follows() -> None:
    lines = LineSplitter("web", "stdout")
    fed = feed(lines, "an Error occurred\n", 5.0)
    assert (fed.consumed, fed.hold_s) == (0, HOLD_S)
    fed = feed(lines, "an Error occurred\n", 5.1, expired=True)
    assert messages(fed) == ["an Error occurred"]
    assert fed.batch is not None
    assert list(fed.batch.levels) in (["info"], list("info"))


def test_the_end_of_one_wait_does_not_cut_the_next_trace() -> None:
    lines = LineSplitter("web", "stdout")
    feed(lines, "Error: x\n", 1.0)
    fed = feed(lines, "Error: x\nplain\nTraceback (most recent call last):\n", 1.2, expired=True)
    assert messages(fed) == ["Error: x", "plain"]
    assert fed.hold_s == HOLD_S


def test_a_trace_is_bounded_in_lines_and_characters() -> None:
    frames = "".join(f"\tat a.b.C.d(C.java:{n})\n" for n in range(2 * MAX_LINES + 10))
    fed = feed(LineSplitter("web", "stdout"), f"java.lang.StackOverflowError\n{frames}", final=True)
    assert [m.count("\n") + 1 for m in messages(fed)] == [1000, 1000, 11]
    frames = "".join(f"\tat {'x' * 1000}({n})\n" for n in range(100))
    fed = feed(LineSplitter("web", "stdout"), f"an Error\n{frames}", final=True)
    assert all(len(m) <= 64 * 1024 for m in messages(fed))
    assert "\n".join(messages(fed)) + "\n" == f"an Error\n{frames}"


def test_indented_text_and_blank_lines_that_are_no_trace_stay_apart() -> None:
    text = "an Error here\n\n  indented\npanic: no\n\nnext\n  File x\ngoroutines\nat home\n"
    fed = feed(LineSplitter("web", "stdout"), text)
    assert messages(fed) == text.split("\n")[:-1]


def test_json_that_mentions_an_error_does_not_wait() -> None:
    fed = feed(LineSplitter("web", "stdout"), '{"level":"error","msg":"Error: x"}\n')
    assert messages(fed) == ["Error: x"]
    assert fed.hold_s is None


def test_a_secret_in_a_trace_is_redacted_and_crlf_traces_join() -> None:
    text = PYTHON.replace("bad", "password=hunter2").replace("\n", "\r\n") + "\r\n"
    fed = feed(LineSplitter("web", "stdout"), text, final=True)
    assert messages(fed) == [PYTHON.replace("bad", "password=[redacted]")]
