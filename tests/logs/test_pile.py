"""A pile is a queue like any other, whatever it packs; the index over it costs next to no memory."""

import subprocess
import sys
from collections import deque
from pathlib import Path

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from orionagent.logs.moves import Moves
from orionagent.logs.pile import BUNDLE, Packing, Pile
from tests.end_to_end.daemon import REPOSITORY


class Record(msgspec.Struct, array_like=True):
    """A record with an identity of its own."""

    number: int
    text: str = ""


PACKING: Packing[Record] = Packing(Record, lambda record: record.text == "loose")


def numbers(pile: Pile[Record]) -> list[int]:
    return [record.number for record in pile]


@given(
    steps=st.lists(
        st.tuples(st.sampled_from(["append", "appendleft", "popleft", "update"]), st.integers(1, 3 * BUNDLE)),
        max_size=12,
    ),
    loose=st.integers(2, 5000),
)
def test_a_pile_behaves_like_a_deque(steps: list[tuple[str, int]], loose: int) -> None:
    pile, model, added = Pile(PACKING), deque[int](), 0
    for what, times in steps:
        if what == "update":
            chunks = pile.chunks()
            pile.update(lambda record: setattr(record, "number", record.number + 1), {})
            assert [record.number for chunk in chunks for record in PACKING.unpack(chunk)] == list(model)
            model = deque(number + 1 for number in model)
            continue
        for _ in range(times):
            added += 1
            record = Record(added, "loose" if added % loose == 0 else "")
            if what == "append":
                pile.append(record)
                model.append(added)
            elif what == "appendleft":
                pile.appendleft(record)
                model.appendleft(added)
            elif model:
                first = pile.front[0]
                assert pile.popleft() is first
                assert first.number == model.popleft()
        assert (len(pile), bool(pile), numbers(pile)) == (len(model), bool(model), list(model))
    assert [record.number for record in pile.drain()] == list(model)
    assert not pile


def test_work_that_another_thread_did_already_is_taken_over() -> None:
    pile = Pile(PACKING)
    for number in range(10 * BUNDLE):
        pile.append(Record(number))
    done = {
        id(chunk): PACKING.amend(chunk, lambda record: setattr(record, "number", -record.number))
        for chunk in pile.chunks()
        if isinstance(chunk, bytes)
    }
    assert len(done) == 8
    for _ in range(BUNDLE):
        pile.popleft()
    called: list[int] = []
    pile.update(lambda record: called.append(record.number), done)
    first, last = BUNDLE + 1, 8 * BUNDLE  # one record was the whole front when the first bundle was packed
    assert numbers(pile) == [BUNDLE, *(-n for n in range(first, last + 1)), *range(last + 1, 10 * BUNDLE)]
    assert sorted(called) == [BUNDLE, *range(last + 1, 10 * BUNDLE)]


@given(
    sizes=st.lists(st.tuples(st.integers(1, 9), st.integers(0, 5)), min_size=1, max_size=30),
    order=st.randoms(use_true_random=False),
)
def test_moves_know_where_each_stretch_went_and_nothing_else(sizes: list[tuple[int, int]], order: object) -> None:
    stretches, old, new = [], 3, 0
    for size, gap in sizes:
        stretches.append((old, new, size))
        old, new = old + size + gap, new + size
    moves = Moves()
    shuffled = list(stretches)
    order.shuffle(shuffled)  # type: ignore[attr-defined]
    for stretch in shuffled:
        moves.add(*stretch)
    for start, target, size in stretches:
        assert moves.find(start, size) == target
        assert moves.find(start + size - 1, 1) == target + size - 1
        assert moves.find(start + size - 1, 2) is None
    assert moves.find(0, 1) is None


ONE_LINE_BATCHES = """
import sys
from tests.logs.journals import numbered, open_buffer

def memory_mib(field):
    return next(int(line.split()[1]) for line in open("/proc/self/status") if line.startswith(field)) / 1024

path, count = sys.argv[1], int(sys.argv[2])
idle = memory_mib("VmRSS")
buffer = open_buffer(path, max_entries=count, max_bytes=256 << 20)
assert buffer.entries in (0, count)
for number in range(1, 0 if buffer.entries else count + 1):
    buffer.append(numbered(number, number, source=f"source-{number % 7}", offset=number * 10))
    assert not buffer.custody.needs_compaction
assert buffer.entries == count
print(memory_mib("VmHWM") - idle)
buffer.close()
"""


@pytest.mark.parametrize("life", ["filled", "started"])
def test_a_hundred_thousand_one_line_batches_wait_in_little_memory(root: Path, life: str) -> None:
    def grow_mib() -> float:
        command = [sys.executable, "-c", ONE_LINE_BATCHES, str(root / "buffer.jsonl"), "100000"]
        return float(subprocess.run(command, cwd=REPOSITORY, check=True, capture_output=True, timeout=120).stdout)

    grown = grow_mib()
    if life == "started":
        grown = grow_mib()
    assert grown < 10, "MiB; 100 bytes a batch"
