"""Owns how a batch of lines becomes NDJSON: the bytes of the journal and, unchanged, of the wire.

Knows nothing of files, sequence policy or delivery.
"""

from collections.abc import Iterator, Mapping, Sequence
from itertools import count, repeat
from typing import Any

import msgspec

from orionagent.wire import Alert, Batch, Entry, Extra

SLICE_LINES = 4096
"""Lines encoded in one call: bounds the objects alive at once when a chunk holds many tiny lines."""

_ENCODER = msgspec.json.Encoder()
NO_EXTRA = Extra()


class Line(msgspec.Struct, gc=False):
    """An entry without rarities; positional, because `map` then builds a batch's lines at C speed."""

    seq: int
    timestamp: str
    level: str
    message: str
    source: str
    stream: str


def encode_batch(batch: Batch, first_seq: int) -> list[bytes]:
    """Return the batch's entry lines, numbered from `first_seq`, in pieces of whole lines.

    Content never makes this fail: what JSON cannot carry (a lone surrogate, odd metadata) is replaced.
    """
    total = len(batch.messages)
    if total <= SLICE_LINES:
        return [_encode_slice(batch, first_seq, 0, total)]
    return [
        _encode_slice(batch, first_seq + start, start, min(start + SLICE_LINES, total))
        for start in range(0, total, SLICE_LINES)
    ]


def _encode_slice(batch: Batch, first_seq: int, start: int, stop: int) -> bytes:
    messages, levels = batch.messages, batch.levels
    if stop - start < len(messages):
        messages = messages[start:stop]
        levels = levels if isinstance(levels, str) else levels[start:stop]
    lines: list[Line | Entry] = list(
        map(
            Line,
            count(first_seq),
            repeat(batch.timestamp),
            repeat(levels) if isinstance(levels, str) else levels,
            messages,
            repeat(batch.source),
            repeat(batch.stream),
        )
    )
    for index, extra in batch.extras.items():
        if start <= index < stop:
            lines[index - start] = _with_extra(lines[index - start], extra)
    try:
        return _ENCODER.encode_lines(lines)
    except (UnicodeEncodeError, TypeError, ValueError, OverflowError, RecursionError):
        return b"".join(map(encode_entry_safely, lines))


def _with_extra(line: Line | Entry, extra: Extra) -> Entry:
    return Entry(
        seq=line.seq,
        timestamp=line.timestamp,
        level=line.level,
        message=line.message,
        source=line.source,
        stream=line.stream,
        metadata=dict(extra.metadata) if extra.metadata is not None else None,
        tags=tuple(extra.tags),
        partial=extra.partial,
    )


def _clean(text: str) -> str:
    return text.encode("utf-8", "replace").decode()


def encode_entry_safely(line: Line | Entry) -> bytes:
    """Return one entry line whatever its texts and metadata hold."""
    try:
        return _ENCODER.encode(line) + b"\n"
    except (UnicodeEncodeError, TypeError, ValueError, OverflowError, RecursionError):
        whole = line if isinstance(line, Entry) else _with_extra(line, NO_EXTRA)
        cleaned = msgspec.structs.replace(
            whole,
            message=_clean(whole.message),
            metadata=None if whole.metadata is None else {"unencodable": _clean(ascii(whole.metadata))},
            tags=tuple(_clean(tag) for tag in whole.tags),
        )
        return _ENCODER.encode(cleaned) + b"\n"


def encode_alert(alert: Alert) -> bytes:
    """Return an alert as one line: the body of `POST /agent/alert`."""
    try:
        return _ENCODER.encode(alert) + b"\n"
    except UnicodeEncodeError:
        cleaned = msgspec.structs.replace(
            alert, message=_clean(alert.message), lastLines=tuple(_clean(line) for line in alert.lastLines)
        )
        return _ENCODER.encode(cleaned) + b"\n"


class Single(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """Body of the single-entry route: what has no field of its own there moves into the metadata."""

    timestamp: str
    level: str
    message: str
    metadata: Mapping[str, Any] | None = None
    tags: Sequence[str] = ()


def single_bodies(lines: bytes) -> Iterator[tuple[int, bytes]]:
    """Yield (seq, body for `POST /agent/log`) of each entry line."""
    decoder = msgspec.json.Decoder(Entry)
    for line in lines.splitlines():
        entry = decoder.decode(line)
        metadata: dict[str, Any] = {"source": entry.source, "stream": entry.stream}
        if entry.partial:
            metadata["partial"] = True
        if entry.damaged:
            metadata["damaged"] = True
        metadata.update(entry.metadata or {})
        body = Single(
            timestamp=entry.timestamp,
            level=entry.level,
            message=entry.message,
            metadata=metadata,
            tags=entry.tags,
        )
        yield entry.seq, _ENCODER.encode(body)


def alert_as_entry(alert: Alert, seq: int) -> bytes:
    """Return the fatal log entry that stands in for an alert where a backend knows no alerts."""
    facts = msgspec.to_builtins(alert)
    facts["alert"] = True
    del facts["message"], facts["timestamp"], facts["source"]
    entry = Entry(
        seq=seq,
        timestamp=alert.timestamp,
        level="fatal",
        message=alert.message,
        source=alert.source,
        stream="agent",
        metadata=facts,
    )
    return encode_entry_safely(entry)
