"""Owns the way from a stream's bytes to entries: lines, their levels, traces, parts and JSON.

Knows nothing of pipes, clocks or buffers: bytes and the time are arguments, nothing is read or written.

The caller shows the unconsumed head of a stream; what is not consumed is shown again, from its start, with
more behind it. So the only things remembered between two calls are where the stream stands, whether that is
amid an overlong line, and since when an open stack trace has been waiting.

What becomes of unusual text:

- a line ends with LF or CR LF; CRs before it go with it;
- a CR inside a line overwrites, as on a terminal: the last non-empty state is the message and everything
  before it stays in the metadata as `overwritten`, so that nothing is lost;
- an empty line is an entry with an empty message; NUL stays NUL (JSON escapes it);
- bytes that are not UTF-8 become U+FFFD;
- a line longer than `max_line_bytes` becomes several entries, each marked `partial`, numbered by
  `metadata.part`; the last one has `metadata.last`. Their level is the first part's.
"""

from collections.abc import Sequence
from typing import Any, TypeAlias

import msgspec

from orionagent.scripts.levels import JSON, TRACE, LevelReader, Reading, level_of
from orionagent.scripts.redact import Redactor
from orionagent.scripts.structured import read_object
from orionagent.scripts.traces import LOOK_BACK_LINES, Close, find_traces, may_hold_traces
from orionagent.wire import Batch, Extra, Level, Stream

PEEK_BYTES = 256 * 1024
HOLD_S = 0.1
# How far back the cut of an overlong line may move for the sake of a word.
_CUT_BYTES = 512


Standing: TypeAlias = tuple[int, int, str, int | None, float]
"""Where a splitter stands: offset, part of an overlong line and its level, where and since when a trace is held."""


class Fed(msgspec.Struct, frozen=True, kw_only=True):
    """What one look at the stream brought.

    `batch` covers exactly the first `consumed` bytes shown. `hold_s`: within so many seconds the stream must
    be shown again with `expired=True`, even if nothing more has arrived (None: only when more has).
    """

    batch: Batch | None
    consumed: int
    hold_s: float | None


class _Found:
    """The entries of one batch while it is put together, column-wise."""

    def __init__(self) -> None:
        self.messages: list[str] = []
        self.levels: list[str] = []
        self.uniform: str | None = None
        self.extras: dict[int, Extra] = {}

    def add(self, messages: list[str], levels: str | Sequence[str], extras: dict[int, Extra]) -> None:
        """Append entries; `levels` is one for all or one each."""
        first = len(self.messages)
        if not first and isinstance(levels, str):
            self.messages, self.uniform, self.extras = messages, levels, extras
            return
        if self.uniform is not None:
            self.levels, self.uniform = [self.uniform] * first, None
        self.messages += messages
        self.levels.extend([levels] * len(messages) if isinstance(levels, str) else levels)
        self.extras |= {first + index: extra for index, extra in extras.items()}


class LineSplitter:
    """Turns one stream of one source into batches of entries.

    `offset` is where in the stream the first byte shown stands. `multiline` joins stack traces, which may
    keep the lines of a trace back for HOLD_S. Sole writer of its own state; not shared between greenlets.
    """

    def __init__(
        self,
        source: str,
        stream: Stream,
        *,
        stderr_level: Level = "error",
        multiline: bool = True,
        redactor: Redactor | None = None,
        offset: int = 0,
        max_line_bytes: int = PEEK_BYTES,
    ) -> None:
        self.source = source
        self.stream = stream
        self.offset = offset
        self._default: Level = stderr_level if stream == "stderr" else "info"
        self._multiline = multiline
        self._redactor = redactor or Redactor()
        self._max_line_bytes = max_line_bytes
        self._levels = LevelReader(self._default)
        self._parts = 0
        self._part_level: str = self._default
        self._held_at: int | None = None
        self._held_since_s = 0.0

    def __repr__(self) -> str:
        return f"LineSplitter({self.source}:{self.stream} at {self.offset})"

    def state(self) -> Standing:
        """Return where the splitter stands, for `restore`."""
        return self.offset, self._parts, self._part_level, self._held_at, self._held_since_s

    def restore(self, standing: Standing) -> None:
        """Forget what was fed since `state`: its entries were not taken, its bytes are shown again."""
        self.offset, self._parts, self._part_level, self._held_at, self._held_since_s = standing

    def feed(
        self,
        chunk: bytes,
        now_s: float,
        now_text: str,
        *,
        expired: bool = False,
        full: bool = False,
        final: bool = False,
    ) -> Fed:
        """Return the entries at the head of a stream, and how many bytes they cover.

        Args:
            chunk: the stream from `offset` on, as much as is there (more than `max_line_bytes` is fine).
            now_s: seconds, for the wait of an open trace; a clock that is set back only prolongs that wait.
            now_text: RFC 3339 time for the entries.
            expired: the wait that an earlier `hold_s` asked for is over.
            full: the stream can take no more (a full pipe), so waiting for the rest of a line is in vain.
            final: no more will come; everything is delivered.
        """
        found, position, size = _Found(), 0, self._max_line_bytes
        hold_s = None
        while position < len(chunk):
            window = chunk if size >= len(chunk) else chunk[position : position + size]
            is_last = position + len(window) == len(chunk)
            taken, hold_s = self._feed_window(
                window,
                now_s,
                found,
                expired=expired,
                full=len(window) >= size or (full and is_last),
                final=final and is_last,
            )
            if not taken:
                break
            position += taken
            if position < len(chunk) and len(window) == len(chunk):
                break
        if not position:
            return Fed(batch=None, consumed=0, hold_s=hold_s)
        batch = Batch(
            source=self.source,
            stream=self.stream,
            timestamp=now_text,
            messages=found.messages,
            levels=found.levels if found.uniform is None else found.uniform,
            extras=found.extras,
            offset=self.offset,
        )
        return Fed(batch=batch, consumed=position, hold_s=hold_s)

    def _feed_window(
        self, window: bytes, now_s: float, found: _Found, *, expired: bool, full: bool, final: bool
    ) -> tuple[int, float | None]:
        """Add the entries of at most `max_line_bytes`; return the bytes covered and the wait asked for."""
        if final:
            text = window if window.endswith(b"\n") else window + b"\n"
            self._take_lines(text, now_s, found, "all")
            self.offset -= len(text) - len(window)
            return len(window), None
        end = window.rfind(b"\n") + 1
        consumed, hold_s = 0, None
        if end:
            is_over = now_s >= self._held_since_s + HOLD_S or expired
            close: Close = "first" if full or (is_over and self._held_at == self.offset) else "none"
            consumed, hold_s = self._take_lines(window[:end], now_s, found, close)
        if full and not consumed:
            consumed = self._take_part(window, found)
        return consumed, hold_s

    def _take_lines(self, text: bytes, now_s: float, found: _Found, close: Close) -> tuple[int, float | None]:
        """Add the entries of complete lines, `text` ending with the last one's LF."""
        first = 0
        if self._parts:
            first = text.index(b"\n") + 1
            self._add_part(text[: first - 1].rstrip(b"\r"), found, is_last=True)
            self.offset += first
            if first == len(text):
                return first, None
            text = text[first:]
            close = close if close == "all" else "none"
        lines = text[:-1].decode("utf-8", "replace").split("\n")
        self._redactor.redact_lines(text, lines)
        extras = _settle_returns(lines) if b"\r" in text else {}
        reading = self._levels.read(lines)
        spans: Sequence[tuple[int, int]] = ()
        open_at: int | None = None
        if self._multiline:
            is_suspect = reading.kinds & TRACE and may_hold_traces(text)
            start = 0 if is_suspect else max(0, len(lines) - LOOK_BACK_LINES)
            spans, open_at = find_traces(lines, start, close)
        hold_s = None
        if open_at is not None:
            text, hold_s = self._hold(text, len(lines) - open_at, now_s)
            del lines[open_at:]
        else:
            self._held_at = None
        self.offset += len(text)
        if lines:
            self._add_lines(lines, reading, spans, extras, found)
        return first + len(text), hold_s

    def _hold(self, text: bytes, count: int, now_s: float) -> tuple[bytes, float]:
        """Return the text without its last `count` lines, and how long those may still wait."""
        end = len(text)
        for _ in range(count):
            end = text.rfind(b"\n", 0, end - 1) + 1
        held_at = self.offset + end
        if self._held_at != held_at:
            self._held_at, self._held_since_s = held_at, now_s
        return text[:end], min(HOLD_S, max(0.0, HOLD_S - (now_s - self._held_since_s)))

    def _add_lines(
        self,
        lines: list[str],
        reading: Reading,
        spans: Sequence[tuple[int, int]],
        extras: dict[int, Extra],
        found: _Found,
    ) -> None:
        read = reading.levels
        if not isinstance(read, str):
            # Lines that were held back have been read, but are not among these.
            del read[len(lines) :]
        if not (reading.kinds & JSON or spans or extras):
            found.add(lines, read, {})
            return
        default = self._default
        levels: list[Level] = [read] * len(lines) if isinstance(read, str) else read
        if reading.kinds & JSON:
            for index, line in enumerate(lines):
                if line[:1] == "{" and (said := read_object(line)) is not None:
                    lines[index] = said.message
                    levels[index] = said.level or default
                    if said.metadata is not None:
                        extras[index] = _with_metadata(extras.get(index), said.metadata)
        for start, end in reversed(spans):
            levels[start] = level_of(lines[start]) or "error"
            for index in range(start, end):
                if index in extras:
                    lines[index] = f"{_overwritten(extras.pop(index))}\r{lines[index]}"
            lines[start:end] = ["\n".join(lines[start:end])]
            del levels[start + 1 : end]
        if spans and extras:
            extras = _shift(extras, spans)
        found.add(lines, levels, extras)

    def _take_part(self, tail: bytes, found: _Found) -> int:
        """Add the head of an overlong line; return how many bytes of it were taken."""
        cut = self._cut(tail)
        self._add_part(tail[:cut], found, is_last=False)
        self.offset += cut
        return cut

    def _cut(self, tail: bytes) -> int:
        """Return where to cut an overlong line: between words if that is near, never inside a character."""
        end = len(tail)
        if tail.endswith(b"\r") and end > 1:
            end -= 1
        reach = min(_CUT_BYTES, end // 4)
        if reach:
            end = end - reach + self._redactor.safe_cut(tail[end - reach : end])
        for back in range(1, min(4, end) + 1):
            byte = tail[end - back]
            if byte < 0x80:
                break
            if byte >= 0xC0:
                length = 2 if byte < 0xE0 else 3 if byte < 0xF0 else 4
                if length > back and end > back:
                    end -= back
                break
        return end

    def _add_part(self, raw: bytes, found: _Found, *, is_last: bool) -> None:
        text = self._redactor.redact(raw.decode("utf-8", "replace"))
        self._parts += 1
        if self._parts == 1:
            self._part_level = level_of(text) or self._default
        metadata: dict[str, Any] = {"part": self._parts}
        if is_last:
            metadata["last"] = True
            self._parts = 0
        found.add([text], self._part_level, {0: Extra(metadata=metadata, partial=True)})


def _with_metadata(extra: Extra | None, metadata: dict[str, Any]) -> Extra:
    return Extra(metadata={**metadata, **(extra.metadata or {})} if extra else metadata)


def _overwritten(extra: Extra) -> str:
    return str((extra.metadata or {})["overwritten"])


def _settle_returns(lines: list[str]) -> dict[int, Extra]:
    """Let CRs act as on a terminal, in place; return what was overwritten."""
    extras = {}
    for index, line in enumerate(lines):
        if "\r" in line:
            before, mark, lines[index] = line.rstrip("\r").rpartition("\r")
            if mark:
                extras[index] = Extra(metadata={"overwritten": before})
    return extras


def _shift(extras: dict[int, Extra], spans: Sequence[tuple[int, int]]) -> dict[int, Extra]:
    """Return the extras under the indexes that their lines have once each span is one line."""
    return {
        index - sum(end - start - 1 for start, end in spans if end <= index): extra for index, extra in extras.items()
    }
