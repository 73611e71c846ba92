"""However a stream arrives, its entries are the same and cover it exactly."""

from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from orionagent.scripts.levels import LEVEL, LevelReader, kind_of, level_of
from orionagent.scripts.lines import LineSplitter
from orionagent.scripts.redact import Redactor
from tests.effort import examples
from tests.scripts.test_traces import ALL

NOW = "2026-01-01T00:00:00.000Z"
NO_REDACTION = Redactor([])

WORDS = [
    *(line for trace in ALL.values() for line in trace.split("\n")),
    *ALL.values(),
    "",
    "\r",
    "a",
    "ERROR x",
    "2026-01-01T00:00:00Z WARN y",
    '{"level":"warn","msg":"m","k":1}',
    "password=hunter2",
    "é€😀" * 12,
    "x" * 130,
    "y " * 70,
]
LINES = st.lists(st.sampled_from(WORDS) | st.text(max_size=12), max_size=14).map("\n".join)
STREAMS = LINES.map(str.encode) | st.binary(max_size=200) | st.lists(st.binary(max_size=60)).map(b"\n".join)
CUTS = st.lists(st.integers(min_value=0, max_value=400), max_size=8)


def read(stream: bytes, cuts: list[int], **options: Any) -> tuple[list[tuple[Any, ...]], list[int]]:
    """Return the entries (message, level, extra) of a stream whose bytes arrive cut up, and the offsets."""
    lines = LineSplitter("web", "stdout", **options)
    entries: list[tuple[Any, ...]] = []
    offsets = []
    start = 0
    size = options.get("max_line_bytes", 256 * 1024)
    for end in [*sorted({min(cut, len(stream)) for cut in cuts}), len(stream)]:
        is_final = end == len(stream)
        while start < end:
            window = stream[start:end][:size]
            fed = lines.feed(window, 0.0, NOW, final=is_final and start + len(window) == end)
            assert 0 <= fed.consumed <= len(window)
            assert (fed.batch is None) == (fed.consumed == 0)
            if fed.batch is None:
                break
            start += fed.consumed
            assert fed.batch.offset == lines.offset == start
            offsets.append(start)
            levels = fed.batch.levels
            for index, message in enumerate(fed.batch.messages):
                level = levels if isinstance(levels, str) else levels[index]
                entries.append((message, level, fed.batch.extras.get(index)))
            assert isinstance(levels, str) or len(levels) == len(fed.batch.messages)
            assert all(0 <= index < len(fed.batch.messages) for index in fed.batch.extras)
    assert start == len(stream)
    return entries, offsets


@given(stream=STREAMS, cuts=CUTS, multiline=st.booleans())
@settings(max_examples=examples(400), deadline=None)
def test_the_way_a_stream_is_cut_up_never_shows(stream: bytes, cuts: list[int], multiline: bool) -> None:
    whole, _ = read(stream, [], multiline=multiline)
    assert read(stream, cuts, multiline=multiline)[0] == whole
    every_byte, _ = read(stream, list(range(len(stream))), multiline=multiline)
    assert every_byte == whole


@given(stream=STREAMS, cuts=CUTS, size=st.integers(min_value=16, max_value=90))
@settings(max_examples=examples(400), deadline=None)
def test_nor_does_it_show_when_lines_are_longer_than_the_limit(stream: bytes, cuts: list[int], size: int) -> None:
    options: dict[str, Any] = {"max_line_bytes": size, "multiline": False}
    assert read(stream, cuts, **options)[0] == read(stream, [], **options)[0]


def reassemble(entries: list[tuple[Any, ...]]) -> str:
    """Return the text that the entries came from, line ends as LF."""
    text = ""
    for message, _, extra in entries:
        metadata = dict(extra.metadata or {}) if extra else {}
        if "overwritten" in metadata:
            text += f"{metadata['overwritten']}\r"
        text += message
        if not (extra and extra.partial) or "last" in metadata:
            text += "\n"
    return text


@given(
    text=LINES,
    cuts=CUTS,
    size=st.integers(min_value=16, max_value=90) | st.just(10_000),
    multiline=st.booleans(),
)
@settings(max_examples=examples(400), deadline=None)
def test_the_entries_make_the_text_again(text: str, cuts: list[int], size: int, multiline: bool) -> None:
    text = text.replace("{", "(").replace("\r", "")
    options: dict[str, Any] = {"max_line_bytes": size, "multiline": multiline, "redactor": NO_REDACTION}
    entries, offsets = read(text.encode(), cuts, **options)
    assert reassemble(entries) == (text if text.endswith("\n") or not text else text + "\n")
    assert offsets == sorted(set(offsets))


@given(line=st.text(max_size=40) | st.sampled_from(WORDS))
def test_the_first_four_characters_never_rule_out_a_level(line: str) -> None:
    levels = LevelReader("verbose").read([line]).levels
    if kind_of(line[:4]) & LEVEL:
        assert levels == [level_of(line) or "verbose"]
    else:
        assert (levels, level_of(line)) == ("verbose", None)
