"""Both framings read the same requests however the bytes are cut, and survive any bytes at all."""

import json
from typing import Any

import msgpack
from hypothesis import given
from hypothesis import strategies as st

from orionagent.ipc.frames import FrameScanner, TooLong
from orionagent.ipc.protocol import LIMIT, Framing, JsonLines, Malformed, MessagePackRpc, Request, framing_for

TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=40)
SCALARS = (
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**63 - 1)
    | st.floats(allow_nan=False, allow_infinity=False)
    | TEXT
)
VALUES = st.recursive(
    SCALARS,
    lambda inner: st.lists(inner, max_size=20) | st.dictionaries(TEXT, inner, max_size=20),
    max_leaves=30,
)
PACKABLE = st.recursive(
    SCALARS | st.binary(max_size=300) | st.builds(msgpack.ExtType, st.integers(0, 127), st.binary(max_size=40)),
    lambda inner: st.lists(inner, max_size=20) | st.dictionaries(TEXT, inner, max_size=20),
    max_leaves=30,
)
PARAMS = st.dictionaries(TEXT.filter(lambda name: name not in ("cmd", "id", "notify")), VALUES, max_size=4)
CUTS = st.lists(st.integers(1, 50), min_size=1, max_size=20)


def feed_cut(framing: Framing, data: bytes, cuts: list[int]) -> list[Request | Malformed]:
    """Feed `data` in pieces of the given sizes, over and over."""
    found: list[Request | Malformed] = []
    position = turn = 0
    while position < len(data):
        size = cuts[turn % len(cuts)]
        found.extend(framing.feed(data[position : position + size]))
        position, turn = position + size, turn + 1
    return found


@given(st.lists(st.tuples(TEXT, PARAMS, TEXT | st.integers(-(2**53), 2**53)), max_size=5), CUTS)
def test_json_lines_are_read_however_they_are_cut(
    calls: list[tuple[str, dict[str, Any], str | int]], cuts: list[int]
) -> None:
    data = b"".join(json.dumps({**params, "cmd": cmd, "id": i}).encode() + b"\n" for cmd, params, i in calls)
    framing = JsonLines()
    assert feed_cut(framing, data, cuts) == [Request(cmd=cmd, params=params, id=i) for cmd, params, i in calls]
    assert not framing.pending


@given(st.lists(st.tuples(TEXT, PARAMS, st.integers(0, 2**32 - 1)), min_size=1, max_size=5), CUTS)
def test_message_pack_calls_are_read_however_they_are_cut(
    calls: list[tuple[str, dict[str, Any], int]], cuts: list[int]
) -> None:
    data = b"".join(msgpack.packb([0, i, cmd, params]) for cmd, params, i in calls)
    framing = framing_for(data)
    assert isinstance(framing, MessagePackRpc)
    assert feed_cut(framing, data, cuts) == [Request(cmd=cmd, params=params, id=i) for cmd, params, i in calls]
    assert not framing.pending


@given(PACKABLE, PACKABLE, st.data())
def test_the_scanner_finds_the_end_of_a_value_and_asks_for_more_before(first: Any, second: Any, data: Any) -> None:
    message = msgpack.packb(first)
    scanner = FrameScanner(LIMIT)
    for size in sorted(data.draw(st.lists(st.integers(0, len(message) - 1), max_size=5))):
        assert scanner.find_end(message[:size]) is None
    assert scanner.find_end(message + msgpack.packb(second)) == len(message)
    assert scanner.find_end(msgpack.packb(second)) == len(msgpack.packb(second))


@given(st.binary(min_size=1, max_size=400), CUTS)
def test_no_bytes_at_all_break_a_framing(data: bytes, cuts: list[int]) -> None:
    for framing in (JsonLines(), MessagePackRpc()):
        for message in feed_cut(framing, data, cuts):
            assert isinstance(message, Request | Malformed)


@given(st.integers(LIMIT, 2**32 - 1), st.sampled_from([b"\xdd", b"\xdf", b"\xc6", b"\xdb", b"\xc9"]))
def test_a_message_that_announces_too_much_is_refused_before_it_arrives(count: int, head: bytes) -> None:
    try:
        FrameScanner(LIMIT).find_end(head + count.to_bytes(4))
    except TooLong:
        return
    raise AssertionError("accepted")


@given(VALUES)
def test_replies_are_read_by_other_implementations(data: Any) -> None:
    assert msgpack.unpackb(MessagePackRpc().reply(4, data)) == [1, 4, None, data]
    assert json.loads(JsonLines().reply("x", data)) == {"ok": True, "data": data, "id": "x"}
