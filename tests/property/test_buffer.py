"""Whatever happens to the journal's bytes, the buffer opens, keeps what is intact, and counts the rest."""

import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager

import msgspec
from hypothesis import example, given, settings
from hypothesis import strategies as st

from orionagent.logs.journal import Mark, Ranges, decode_control, encode_control
from tests.effort import examples
from tests.logs.journals import BOOT, Sent, alert, drain, numbered, open_buffer

BOOTS = st.sampled_from([BOOT, "boot-after"])
SETTINGS = settings(max_examples=examples(250), deadline=None)


@contextmanager
def journal(content: bytes) -> Iterator[str]:
    with tempfile.TemporaryDirectory(prefix="or-") as folder:
        path = os.path.join(folder, "buffer.jsonl")
        with open(path, "wb") as file:
            file.write(content)
        yield path


def shown(sent: Sent) -> str:
    return str(sent.get("id") or sent["message"])


def make_journal() -> tuple[bytes, list[str]]:
    """Return a journal with batches of two sources, an alert, acknowledgements and drops; and what waits in it."""
    with journal(b"") as path:
        buffer = open_buffer(path, max_entries=26)
        for first in range(1, 31, 5):
            buffer.append(numbered(first, first + 4, source="api" if first % 2 else "web", offset=first * 7))
        list(drain(buffer, most=4, limit=1))
        buffer.append_alert(alert())
        buffer.append(numbered(31, 33, offset=999))
        list(drain(buffer, most=3, limit=1))
        with open(path, "rb") as file:
            content = file.read()
        waiting = [shown(sent) for sent in drain(buffer)]
        buffer.close()
        return content, waiting


JOURNAL, WAITING = make_journal()
EVERYTHING = [f"line {number}" for number in range(1, 34)] + ["a1"]


class Outcome(msgspec.Struct):
    """What became of a damaged journal: the old entries delivered, how many were counted lost, all sent."""

    kept: list[str]
    lost: int
    sent: list[Sent]


def recover(content: bytes, boot_id: str) -> Outcome:
    """Open a damaged journal, go on with it, restart, and deliver everything."""
    with journal(content) as path:
        buffer = open_buffer(path, boot_id=boot_id)
        lost = buffer.dropped.total
        buffer.append(numbered(101, 103))
        again = open_buffer(path, boot_id=boot_id)
        sent = list(drain(again))
        assert [shown(entry) for entry in sent] == [shown(entry) for entry in drain(buffer)]
        empty = open_buffer(path, boot_id=boot_id)
        assert empty.entries == 0
        for each in (buffer, again, empty):
            each.close()
    keys = [(entry.instance, entry.get("seq", -1 - index)) for index, entry in enumerate(sent)]
    assert len(set(keys)) == len(keys), "a number repeats within its instance"
    assert [shown(entry) for entry in sent[-3:]] == ["line 101", "line 102", "line 103"]
    return Outcome(kept=[shown(entry) for entry in sent[:-3]], lost=lost, sent=sent)


def test_an_undamaged_journal_comes_back_whole() -> None:
    assert recover(JOURNAL, BOOT).kept == WAITING
    assert recover(JOURNAL, "boot-after").kept == WAITING


@SETTINGS
@given(length=st.integers(0, len(JOURNAL)), boot=BOOTS)
def test_a_truncated_journal_gives_back_a_prefix(length: int, boot: str) -> None:
    outcome = recover(JOURNAL[:length], boot)
    whole = [line for line in EVERYTHING if line in outcome.kept]
    assert sorted(outcome.kept) == sorted(whole), "an entry came twice or changed"
    intact = [shown(entry) for entry in outcome.sent[:-3] if not entry.get("damaged")]
    numbers = [int(line.split()[1]) for line in intact if line != "a1"]
    assert numbers == sorted(numbers)


@SETTINGS
@given(place=st.integers(0, len(JOURNAL) - 1), value=st.integers(0, 255), boot=BOOTS)
@example(place=len(JOURNAL) - 1, value=0x58, boot=BOOT)
@example(place=0, value=0x58, boot=BOOT)
def test_one_flipped_byte_costs_at_most_the_entry_it_hit_and_that_is_counted(place: int, value: int, boot: str) -> None:
    content = bytearray(JOURNAL)
    content[place] = value
    outcome = recover(bytes(content), boot)
    changed = [line for line in outcome.kept if line not in EVERYTHING]
    missing = [line for line in WAITING if line not in outcome.kept]
    assert len(changed) <= 1
    assert len(missing) <= 1 + (value == 0x0A) + (JOURNAL[place] == 0x0A)
    assert len(missing) - len(changed) <= outcome.lost
    for entry in outcome.sent[:-3]:
        if shown(entry) in changed and "id" not in entry:
            assert entry["damaged"] is True


@SETTINGS
@given(place=st.integers(0, len(JOURNAL)), junk=st.binary(min_size=1, max_size=200), boot=BOOTS)
@example(place=len(JOURNAL), junk=b"\0" * 200, boot=BOOT)
@example(place=len(JOURNAL), junk=b"\0" * 200, boot="boot-after")
@example(place=0, junk=b"-----BEGIN something else\n", boot=BOOT)
def test_foreign_bytes_in_the_middle_cost_at_most_what_they_touch(place: int, junk: bytes, boot: str) -> None:
    outcome = recover(JOURNAL[:place] + junk + JOURNAL[place:], boot)
    assert len([line for line in WAITING if line not in outcome.kept]) <= 1


@SETTINGS
@given(start=st.integers(0, len(JOURNAL)), size=st.integers(1, 600), boot=BOOTS)
def test_a_hole_costs_only_the_entries_in_it(start: int, size: int, boot: str) -> None:
    content = JOURNAL[:start] + bytes(len(JOURNAL[start : start + size])) + JOURNAL[start + size :]
    outcome = recover(content, boot)
    touched = size // 60 + 2
    missing = [line for line in WAITING if line not in outcome.kept]
    assert len(missing) <= touched + (5 if boot == BOOT else 0)


@SETTINGS
@given(content=st.binary(max_size=2000), boot=BOOTS)
def test_any_bytes_at_all_are_survived(content: bytes, boot: str) -> None:
    assert recover(content, boot).kept == []


@given(pairs=st.lists(st.tuples(st.integers(1, 60), st.integers(0, 9)).map(lambda p: (p[0], p[0] + p[1]))))
def test_ranges_know_exactly_what_is_missing(pairs: list[tuple[int, int]]) -> None:
    ranges = Ranges()
    ranges.add(pairs)
    members = {number for first, last in pairs for number in range(first, last + 1)}
    gaps = ranges.missing(1, 80)
    found = {number for first, last in gaps for number in range(first, last + 1)}
    assert found == set(range(1, 81)) - members


@given(
    pairs=st.lists(st.tuples(st.integers(1, 10**9), st.integers(1, 10**9))),
    place=st.integers(0),
    flip=st.integers(1, 255),
)
def test_a_control_line_is_read_back_whole_or_not_at_all(pairs: list[tuple[int, int]], place: int, flip: int) -> None:
    line = encode_control(Mark(ack=pairs, drop=[(1, 2)])).rstrip(b"\n")
    assert decode_control(line) == Mark(ack=pairs, drop=[(1, 2)])
    changed = bytearray(line)
    changed[place % len(line)] ^= flip
    assert decode_control(bytes(changed)) is None
