"""The buffer keeps, orders and numbers entries, and gives up exactly the oldest."""

import json
import os
from collections.abc import Callable

import pytest

from orionagent.logs.journal import Dropped
from orionagent.logs.journalfile import Rewritten
from orionagent.paths import Paths
from orionagent.wire import Batch, Extra
from tests.logs.journals import BOOT, alert, batch, drain, messages, numbered, open_buffer


def test_what_is_appended_is_delivered_in_order_with_increasing_numbers(paths: Paths) -> None:
    buffer = open_buffer(paths.buffer)
    buffer.append(numbered(1, 3))
    buffer.append(numbered(4, 5, source="web"))
    buffer.append(numbered(6, 6))
    sent = list(drain(buffer))
    assert [entry["message"] for entry in sent] == [f"line {n}" for n in range(1, 7)]
    assert [entry["seq"] for entry in sent] == [1, 2, 3, 4, 5, 6]
    assert buffer.entries == buffer.size_bytes == 0
    buffer.close()


def test_an_entry_carries_the_fields_of_the_contract_and_only_those_it_has(paths: Paths) -> None:
    buffer = open_buffer(paths.buffer)
    buffer.append(
        Batch(
            source="api",
            stream="stderr",
            timestamp="2026-01-02T03:04:05.006Z",
            messages=["plain", "rich"],
            levels=["info", "error"],
            extras={1: Extra(metadata={"user": 7}, tags=("a",), partial=True)},
        )
    )
    plain, rich = drain(buffer)
    assert plain == {
        "seq": 1,
        "timestamp": "2026-01-02T03:04:05.006Z",
        "level": "info",
        "message": "plain",
        "source": "api",
        "stream": "stderr",
    }
    assert (rich["level"], rich["metadata"], rich["tags"], rich["partial"]) == (
        "error",
        {"user": 7},
        ["a"],
        True,
    )
    buffer.close()


def test_a_batch_let_in_over_the_limit_outlives_the_agent_and_goes_once_its_room_is_needed(paths: Paths) -> None:
    buffer = open_buffer(paths.buffer, max_entries=10)
    buffer.append(numbered(1, 25), evict=False)  # one large look at a pipe, while the backend takes data
    buffer.close()
    again = open_buffer(paths.buffer, max_entries=10)
    assert (again.entries, again.dropped.total) == (25, 0)
    assert not again.has_room(1)
    again.append(numbered(26, 26))
    assert (again.entries, again.dropped.total) == (10, 16)
    again.close()


def test_text_that_json_cannot_carry_is_replaced_and_its_neighbours_stay(paths: Paths) -> None:
    buffer = open_buffer(paths.buffer)
    odd = Extra(metadata={"what": object()})
    buffer.append(
        Batch(
            source="api",
            stream="stdout",
            timestamp="t",
            messages=["before", "lone \ud800 surrogate", "odd", "line\u2028break\nhere", "after"],
            levels="info",
            extras={2: odd},
        )
    )
    sent = list(drain(buffer))
    assert [entry["message"] for entry in sent] == [
        "before",
        "lone ? surrogate",
        "odd",
        "line\u2028break\nhere",
        "after",
    ]
    buffer.close()


def test_a_restart_under_the_same_boot_goes_on_with_instance_numbers_and_offsets(paths: Paths) -> None:
    first = open_buffer(paths.buffer)
    first.append(numbered(1, 4, offset=28))
    first.append(numbered(5, 6, stream="stderr", offset=14))
    sent = next(drain(first, most=2, limit=1))

    second = open_buffer(paths.buffer)
    assert second.offsets == {"api:stdout": 28, "api:stderr": 14}
    second.append(numbered(7, 7))
    rest = list(drain(second))
    assert [entry["seq"] for entry in rest] == [3, 4, 5, 6, 7]
    assert {entry.instance for entry in rest} == {sent.instance}
    second.close()
    first.close()


def test_after_another_boot_old_entries_keep_their_instance_and_new_ones_get_another(paths: Paths) -> None:
    first = open_buffer(paths.buffer)
    first.append(numbered(1, 2))
    first.close()
    second = open_buffer(paths.buffer, boot_id="boot-2")
    second.append(numbered(3, 4))
    claim = second.claim(second.sources(), 100, 1 << 20)
    assert claim is not None
    assert claim.entries == 2, "a request never mixes instances"
    second.release(claim)
    sent = list(drain(second))
    assert len({entry.instance for entry in sent}) == 2
    assert [entry["message"] for entry in sent] == [f"line {n}" for n in range(1, 5)]
    second.close()
    third = open_buffer(paths.buffer, boot_id="boot-2")
    third.append(numbered(5, 5))
    assert next(iter(drain(third))).instance == sent[-1].instance
    third.close()


def test_the_newest_entries_stay_exactly_and_the_drop_says_how_many_and_from_when_to_when(
    paths: Paths,
) -> None:
    buffer = open_buffer(paths.buffer, max_entries=10)
    for start in range(1, 26, 5):
        buffer.append(numbered(start, start + 4, at=f"2026-01-01T00:00:{start:02d}.000Z"))
    buffer.append(numbered(26, 28))
    assert buffer.entries == 10
    assert buffer.dropped == Dropped(
        total=18, unreported=18, since="2026-01-01T00:00:01.000Z", until="2026-01-01T00:00:16.000Z"
    )
    again = open_buffer(paths.buffer, max_entries=10)
    assert again.dropped == buffer.dropped
    assert messages(again) == [f"line {n}" for n in range(19, 29)]
    buffer.close()
    again.close()


def test_a_batch_larger_than_the_limit_leaves_its_own_newest_lines(paths: Paths) -> None:
    buffer = open_buffer(paths.buffer, max_entries=10)
    buffer.append(numbered(1, 3))
    buffer.append(numbered(4, 40))
    assert buffer.dropped.total == 30
    assert messages(buffer) == [f"line {n}" for n in range(31, 41)]
    buffer.close()


def test_the_byte_limit_drops_whole_entries_and_no_more_than_needed(paths: Paths) -> None:
    buffer = open_buffer(paths.buffer, max_bytes=5_000)
    for number in range(100):
        buffer.append(batch(f"{number:03d}", "x" * 50))
        assert buffer.size_bytes <= 5_000
    assert buffer.size_bytes > 4_700
    kept = messages(buffer)
    assert kept[-2:] == ["099", "x" * 50]
    assert len(kept) + buffer.dropped.total == 200
    buffer.close()


def test_what_is_being_sent_is_not_evicted_and_goes_first_when_it_comes_back(paths: Paths) -> None:
    buffer = open_buffer(paths.buffer, max_entries=10)
    buffer.append(numbered(1, 10))
    claim = buffer.claim(buffer.sources(), 6, 1 << 20)
    assert claim is not None
    buffer.append(numbered(11, 18))
    assert buffer.dropped.total == 2, "ten wait besides those on their way"
    buffer.release(claim)
    assert buffer.dropped.total == 8
    assert messages(buffer) == [f"line {n}" for n in range(9, 19)]
    buffer.close()


def test_alerts_outlive_log_entries_and_stand_among_them_in_order(paths: Paths) -> None:
    buffer = open_buffer(paths.buffer, max_entries=4)
    buffer.append(numbered(1, 3))
    buffer.append_alert(alert("first"))
    buffer.append(numbered(4, 6))
    buffer.append(numbered(7, 8))
    assert messages(buffer) == ["api crashed", "line 6", "line 7", "line 8"]
    assert buffer.dropped.total == 5
    buffer.close()


def test_an_alert_is_a_request_of_its_own(paths: Paths) -> None:
    buffer = open_buffer(paths.buffer)
    buffer.append(numbered(1, 2))
    buffer.append_alert(alert())
    buffer.append(numbered(3, 3))
    shapes = []
    while (claim := buffer.claim(buffer.sources(), 100, 1 << 20)) is not None:
        shapes.append((claim.entries, claim.alert))
        buffer.ack(claim)
    assert shapes == [(2, False), (1, True), (1, False)]
    buffer.close()


def test_alerts_over_a_thousand_are_merged_into_the_scripts_last_one_with_a_count(paths: Paths) -> None:
    buffer = open_buffer(paths.buffer)
    for number in range(1000):
        buffer.append_alert(alert(f"id-{number}", source=f"s{number % 10}"))
    for number in range(5):
        buffer.append_alert(alert(f"more-{number}", source="s3"))
    buffer.append_alert(alert("other", source="new"))
    again = open_buffer(paths.buffer)
    sent = list(drain(again))
    assert len(sent) == 1000
    (merged,) = [entry for entry in sent if "repeated" in entry]
    assert (merged["id"], merged["repeated"]) == ("id-993", 5)
    assert sent[-1]["id"] == "other"
    assert "id-0" not in {entry["id"] for entry in sent}
    assert again.dropped.total == 1
    buffer.close()
    again.close()


def test_a_request_is_bounded_by_bytes_but_always_holds_one_entry(paths: Paths) -> None:
    buffer = open_buffer(paths.buffer)
    buffer.append(batch("a" * 400, "b" * 400, "c" * 400, "d" * 5000))
    sizes = []
    while (claim := buffer.claim(buffer.sources(), 100, 1100)) is not None:
        sizes.append(claim.entries)
        buffer.ack(claim)
    assert sizes == [2, 1, 1]
    buffer.close()


def test_only_the_wanted_sources_are_handed_out_and_acknowledged_across_each_other(paths: Paths) -> None:
    buffer = open_buffer(paths.buffer)
    for number in range(1, 7):
        buffer.append(numbered(number, number, source="odd" if number % 2 else "even"))
    claim = buffer.claim(["even"], 100, 1 << 20)
    assert claim is not None
    assert claim.entries == 3
    buffer.ack(claim)
    again = open_buffer(paths.buffer)
    assert messages(again) == ["line 1", "line 3", "line 5"]
    buffer.close()
    again.close()


def test_reported_drops_are_reported_once_also_after_a_restart(paths: Paths) -> None:
    buffer = open_buffer(paths.buffer, max_entries=5)
    buffer.append(numbered(1, 4))
    buffer.append(numbered(5, 9))
    buffer.report_drops(lambda dropped: batch(f"dropped {dropped.unreported}", source="orion-agent"))
    again = open_buffer(paths.buffer, max_entries=5)
    assert again.dropped.total == 5
    assert again.dropped.unreported == 1, "the report itself pushed one more out"
    assert messages(again)[-1] == "dropped 4"
    buffer.close()
    again.close()


def test_the_journal_is_made_of_the_documented_lines_and_readable_by_nobody_else(paths: Paths) -> None:
    buffer = open_buffer(paths.buffer)
    buffer.append(numbered(1, 2, offset=14))
    list(drain(buffer))
    with open(paths.buffer, "rb") as file:
        content = file.read()
    header, one, _, record, ack = map(json.loads, content.splitlines())
    assert (header["bootId"], len(header["instance"])) == (BOOT, 32)
    assert one["message"] == "line 1"
    assert (record["first"], record["last"], record["offsets"]) == (1, 2, {"api:stdout": 14})
    assert {"bytes", "crc32", "check"} <= set(record)
    assert ack["ack"] == [[1, 2]]
    assert os.stat(paths.buffer).st_mode & 0o777 == 0o600
    buffer.close()


@pytest.mark.parametrize("before_the_copy", [True, False])
def test_compaction_keeps_what_waits_and_what_is_appended_meanwhile(paths: Paths, before_the_copy: bool) -> None:
    buffer = open_buffer(paths.buffer)
    for start in range(1, 101, 10):
        buffer.append(numbered(start, start + 9, offset=start))
    list(drain(buffer, most=35, limit=1))
    before = os.path.getsize(paths.buffer)

    def meanwhile(work: Callable[[], Rewritten]) -> Rewritten:
        done = None if before_the_copy else work()
        buffer.append(numbered(101, 105, offset=105))
        list(drain(buffer, most=7, limit=1))
        return done or work()

    assert buffer.custody.compact(meanwhile)
    buffer.append(numbered(106, 107))
    assert os.path.getsize(paths.buffer) < before
    again = open_buffer(paths.buffer)
    assert again.offsets == {"api:stdout": 105}
    expected = [f"line {n}" for n in range(43, 108)]
    assert messages(again) == expected
    assert messages(buffer) == expected
    buffer.close()
    again.close()


def test_compaction_moves_thousands_of_small_batches_of_several_sources(paths: Paths) -> None:
    buffer = open_buffer(paths.buffer)

    def append(first: int, last: int) -> None:
        for number in range(first, last + 1):
            buffer.append(numbered(number, number, source=f"s{number % 3}"))

    def meanwhile(work: Callable[[], Rewritten]) -> Rewritten:
        append(4001, 4700)
        list(drain(buffer, most=700, limit=1))
        done = work()
        list(drain(buffer, most=100, limit=1))
        append(4701, 5000)
        return done

    append(1, 4000)
    list(drain(buffer, most=1100, limit=1))
    claim = buffer.claim(["s1"], 50, 1 << 20)
    assert claim is not None
    buffer.release(claim)
    assert buffer.custody.compact(meanwhile)
    again = open_buffer(paths.buffer)
    expected = [f"line {n}" for n in range(1901, 5001)]
    assert messages(again) == expected
    assert messages(buffer) == expected
    assert buffer.entries == again.entries == 0
    buffer.close()
    again.close()


def test_compaction_becomes_due_when_delivered_bytes_dominate(paths: Paths) -> None:
    buffer = open_buffer(paths.buffer)
    text = "x" * 100_000
    while not buffer.custody.needs_compaction:
        buffer.append(batch(*[text] * 10))
        list(drain(buffer))
    assert 16 << 20 < os.path.getsize(paths.buffer) < 18 << 20
    buffer.append(numbered(1, 1))
    assert buffer.custody.compact()
    assert os.path.getsize(paths.buffer) < 1000
    assert messages(buffer) == ["line 1"]
    buffer.close()


def test_the_report_of_drops_is_not_dropped_itself_while_entries_can_go(paths: Paths) -> None:
    buffer = open_buffer(paths.buffer, max_entries=10)
    for first in range(1, 401, 20):
        buffer.append(numbered(first, first + 19))
        if first % 100 == 1:
            buffer.report_drops(lambda dropped: batch(f"{dropped.unreported}", source="orion-agent"))
    again = open_buffer(paths.buffer, max_entries=10)
    sent = list(drain(again))
    told = sum(int(entry["message"]) for entry in sent if entry["source"] == "orion-agent")
    assert told + again.dropped.unreported == again.dropped.total
    assert len(sent) == 10
    buffer.close()
    again.close()
