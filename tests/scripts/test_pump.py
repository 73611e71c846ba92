"""What becomes of a pipe's lines when their taking is broken off."""

import os
from collections import deque
from collections.abc import Callable, Iterator
from pathlib import Path

import gevent
import pytest
from gevent.event import Event

from orionagent.scripts.edges import Edges
from orionagent.scripts.lines import LineSplitter
from orionagent.scripts.pump import PipeFiles, Pump, Scratch
from orionagent.wire import Batch

Make = Callable[[Callable[[Batch], object]], tuple[Pump, int]]


@pytest.fixture
def make(root: Path) -> Iterator[Make]:
    """Yield a function that returns a pump and the writing end of its pipe."""
    edges, scratch = Edges(), Scratch()
    opened: list[tuple[Pump, int]] = []

    def open_pump(emit: Callable[[Batch], object]) -> tuple[Pump, int]:
        files = PipeFiles(str(root), "api", "stdout")
        reader, position = files.open(0)
        pump = Pump(
            "api:stdout", files, LineSplitter("api", "stdout"), emit, edges=edges, scratch=scratch, reader=reader,
            position=position, buffered_offset=0, last_lines=deque(maxlen=20),
        )  # fmt: skip
        opened.append((pump, files.open_writer(os.geteuid(), os.getegid())))
        return opened[-1]

    yield open_pump
    for pump, writer in opened:
        os.close(writer)
        pump.close()
    edges.close()
    scratch.close()


@pytest.mark.parametrize("text", [b"one\ntwo\n", b"x" * 300_000 + b"\n"], ids=["lines", "an overlong line"])
def test_what_was_offered_in_vain_is_offered_again_as_if_for_the_first_time(make: Make, text: bytes) -> None:
    is_open, taken = Event(), list[Batch]()

    def emit(batch: Batch) -> None:
        is_open.wait()
        taken.append(batch)

    pump, writer = make(emit)
    os.write(writer, text)
    for _ in range(3):
        pump.drain(0.02)
        assert (pump.consumed_offset, taken) == (0, [])
    is_open.set()
    with gevent.Timeout(20.0):
        while pump.consumed_offset < len(text):
            pump.drain(1.0)
    assert taken[-1].offset == len(text)
    assert "".join(message for batch in taken for message in batch.messages) == text.decode().replace("\n", "")
    parts = [extra.metadata["part"] for batch in taken for extra in batch.extras.values() if extra.metadata]
    assert parts == list(range(1, len(parts) + 1))
