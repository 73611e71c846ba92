"""What the buffer's tests share: batches, a buffer on a path, and draining it the way the shipper does."""

import json
from collections.abc import Iterator
from typing import Any

from orionagent.logs.buffer import Buffer
from orionagent.logs.disk import Disk
from orionagent.wire import Alert, Batch, Stream

BOOT = "boot-1"
AT = "2026-01-02T03:04:05.006Z"


def batch(
    *messages: str, source: str = "api", stream: Stream = "stdout", offset: int | None = None, at: str = AT
) -> Batch:
    return Batch(source=source, stream=stream, timestamp=at, messages=messages, levels="info", offset=offset)


def numbered(first: int, last: int, **fields: Any) -> Batch:
    return batch(*(f"line {number}" for number in range(first, last + 1)), **fields)


def alert(identifier: str = "a1", *, source: str = "api") -> Alert:
    return Alert(
        id=identifier,
        timestamp=AT,
        hostname="host",
        script=source,
        source=source,
        message=f"{source} crashed",
        cause="exit",
        exitCode=1,
    )


def open_buffer(
    path: str,
    *,
    boot_id: str = BOOT,
    max_entries: int = 10_000,
    max_bytes: int = 64 << 20,
    disk: Disk | None = None,
) -> Buffer:
    buffer = Buffer(path, boot_id=boot_id, max_entries=max_entries, max_bytes=max_bytes, disk=disk)
    buffer.open()
    return buffer


class Sent(dict[str, Any]):
    """A delivered line with the instance it came under."""

    instance: str


def drain(
    buffer: Buffer, *, most: int = 1000, max_bytes: int = 2 << 20, ack: bool = True, limit: int = 1 << 30
) -> Iterator[Sent]:
    """Yield what a shipper would send, request by request, acknowledging each."""
    requests = 0
    while requests < limit and (claim := buffer.claim(buffer.sources(), most, max_bytes)) is not None:
        requests += 1
        pieces = buffer.read(claim)
        if pieces is None:
            buffer.lose(claim)
            continue
        lines = b"".join(pieces).splitlines()
        assert len(lines) == claim.entries
        found = []
        for line in lines:
            sent = Sent(json.loads(line))
            sent.instance = claim.instance
            found.append(sent)
        if ack:
            buffer.ack(claim)
        else:
            buffer.release(claim)
        yield from found
        if not ack:
            return


def messages(buffer: Buffer, **options: Any) -> list[str]:
    return [sent["message"] for sent in drain(buffer, **options)]
