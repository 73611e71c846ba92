"""Owns the question which lines of output belong together as one stack trace.

Knows nothing of bytes, time or levels; it is pure. Python, Java, .NET, Node, Go and Ruby.

A trace is recognized by its head and then line by line. What cannot be decided because the text ends there is
"open": the caller shows the same lines again with more behind them, or says that no more will come.
"""

import re
from collections.abc import Callable, Sequence
from typing import Literal, TypeAlias

from orionagent.scripts.search import contains_any

MAX_LINES = 1000
MAX_CHARS = 64 * 1024
# How many lines before the first indented one may belong to a trace (Node's source excerpt).
LOOK_BACK_LINES = 6

Extent: TypeAlias = tuple[int, bool]  # (index behind the last line that surely belongs, whether more may follow)

Close: TypeAlias = Literal["none", "first", "all"]

_PYTHON = "Traceback (most recent call last):"
_CHAIN = (
    "During handling of the above exception, another exception occurred:",
    "The above exception was the direct cause of the following exception:",
)
_PYTHON_LAST = re.compile(r"[A-Za-z_][\w.]*(?::|$)")
_FRAME = re.compile(r"\s+(?:at |\.\.\. \d|Suppressed: |--- |---> )|Caused by: ")
_ORPHAN_FRAME = re.compile(r"\s+at \S")
_FRAMES_HEAD = re.compile(r"(?:Error|Exception|Throwable)(?![\w(])")
_NODE_PLACE = re.compile(r"\S+\.[cm]?[jt]sx?:\d+$|node:\S+:\d+$")
_CARET = re.compile(r"\s*\^[\^~]*$")
_RUBY_HEAD = re.compile(r"\S+:\d+:in [`']")
_RUBY_FRAME = re.compile(r"\s+(?:\d+: )?from ")
_GO_HEAD = re.compile(r"panic: |fatal error: |goroutine \d+ |SIG[A-Z]{2,6}: ")
_GO_SECTION = re.compile(r"goroutine \d+ |runtime stack:|panic: |\[signal |\[recovered\]|created by ")
_GO_CALL = re.compile(r"[\w./\-*$·]+(?:\([\w./\-*$·]+\)[\w.\-$·]*)?\(.*\)$|\.\.\.|r\w{1,5} +0x|[c-g]s +0x")
_HEAD_CHARS = 4096
# One of these is in every trace of more than one line.
_WORDS = (
    b"Error",
    b"Exception",
    b"Throwable",
    b" at ",
    b"\tat ",
    _PYTHON.encode(),
    b":in `",
    b":in '",
    b"panic: ",
    b"goroutine ",
    b"fatal error: ",
    b"SIG",
)


def _indented(line: str) -> bool:
    return line.startswith((" ", "\t"))


def _skip_indented(lines: Sequence[str], index: int) -> int:
    while index < len(lines) and _indented(lines[index]):
        index += 1
    return index


def _python(lines: Sequence[str], start: int) -> Extent:
    end = start
    while True:
        after = _skip_indented(lines, end + 1)
        if after == len(lines):
            return after, True
        if after == end + 1:
            return after if end == start else end, False
        end = after
        if not _PYTHON_LAST.match(lines[end]):
            return end, False
        end = _skip_indented(lines, end + 1)
        # A chained exception: empty line, sentence, empty line, the next traceback.
        for offset, expected in enumerate((("",), _CHAIN, ("",), (_PYTHON,))):
            if end + offset == len(lines):
                return end, True
            if lines[end + offset] not in expected:
                return end, False
        end += 3


def _python_group(lines: Sequence[str], start: int) -> Extent:
    end = _skip_indented(lines, start + 1)
    return end, end == len(lines)


def _frames(lines: Sequence[str], start: int) -> Extent:
    end = start + 1
    while end < len(lines) and _FRAME.match(lines[end]):
        end += 1
    if end == len(lines):
        return end, True
    if end > start + 1 and lines[end - 1].endswith("{"):
        # Node prints an error's own properties behind its last frame.
        after = _skip_indented(lines, end)
        if after == len(lines):
            return end, True
        if lines[after] == "}":
            return after + 1, after + 1 == len(lines)
    return end, False


def _node(lines: Sequence[str], start: int) -> Extent:
    """Follow `file:line`, the source line, the caret, an empty line, the error and its frames."""
    end = start + 2
    if end >= len(lines):
        return start + 1, True
    if not _CARET.match(lines[end]):
        return start + 1, False
    end += 1
    if end < len(lines) and lines[end] == "":
        end += 1
    if end >= len(lines):
        return start + 1, True
    head = end
    end, is_open = _frames(lines, head)
    if is_open:
        return (end if end > head + 1 else start + 1), True
    if end == head + 1:
        return start + 1, False
    if lines[end] != "":
        return end, False
    if end + 1 == len(lines):
        return end, True
    return (end + 2 if lines[end + 1].startswith("Node.js v") else end), False


def _ruby(lines: Sequence[str], start: int) -> Extent:
    end = start + 1
    # error_highlight puts an empty line, the source line and a caret before the frames.
    if end == len(lines):
        return end, True
    if lines[end] == "":
        if end + 2 >= len(lines):
            return end, True
        if not _CARET.match(lines[end + 2]):
            return end, False
        end += 3
    first = end
    while end < len(lines) and _RUBY_FRAME.match(lines[end]):
        end += 1
    if end == len(lines):
        return (end if end > first else start + 1), True
    return (end if end > first else start + 1), False


def _go(lines: Sequence[str], start: int) -> Extent:
    end, in_goroutine = start, False
    while end < len(lines):
        line = lines[end]
        if end == start or _GO_SECTION.match(line):
            in_goroutine |= line.startswith(("goroutine ", "runtime stack:"))
        elif line == "":
            if end + 1 == len(lines):
                return end, True
            if not _GO_SECTION.match(lines[end + 1]):
                return end, False
        elif not (_indented(line) or (in_goroutine and _GO_CALL.match(line))):
            return end, False
        end += 1
    return end, True


def _kind(line: str) -> Callable[[Sequence[str], int], Extent] | None:
    """Return how the trace that this line may begin goes on; None for an ordinary line."""
    if line[:1] == "{":
        return None
    if line.endswith(_PYTHON):
        return _python_group if _indented(line) else _python
    if _GO_HEAD.match(line):
        return _go
    if _RUBY_HEAD.match(line):
        return _ruby
    if _NODE_PLACE.match(line):
        return _node
    if _ORPHAN_FRAME.match(line) or _FRAMES_HEAD.search(line, 0, _HEAD_CHARS):
        return _frames
    return None


def may_hold_traces(chunk: bytes) -> bool:
    """Tell whether a chunk that has indented lines needs a closer look at all of its lines."""
    return contains_any(chunk, _WORDS)


def find_traces(lines: Sequence[str], start: int, close: Close) -> tuple[list[tuple[int, int]], int | None]:
    """Return the traces from line `start` on as (start, end) pairs, and where an open one begins.

    `close` says for which open traces no further line will come ("first": for one that begins with the very
    first line): it is closed with what surely belongs to it. A trace ends after MAX_LINES or MAX_CHARS.
    """
    spans: list[tuple[int, int]] = []
    index = start
    while index < len(lines):
        follow = _kind(lines[index])
        if follow is None:
            index += 1
            continue
        end, is_open = follow(lines[index : index + MAX_LINES], 0)
        end += index
        bounded = _bounded(lines, index, end)
        is_open = is_open and bounded == end and index + MAX_LINES > len(lines)
        if is_open and (close == "none" or (close == "first" and index > 0)):
            return spans, index
        if bounded - index > 1:
            spans.append((index, bounded))
        index = bounded
    return spans, None


def _bounded(lines: Sequence[str], start: int, end: int) -> int:
    """Return where the trace is cut if it is longer than MAX_CHARS, else `end`."""
    size = 0
    for index in range(start, end):
        size += len(lines[index]) + 1
        if size > MAX_CHARS and index > start:
            return index
    return end
