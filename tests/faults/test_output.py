"""Whatever a script writes arrives whole and readable: too long, too fast, not text, or overwritten."""

import sys

from tests.scripts.house import House, wait_for

PYTHON = f"{sys.executable} -S -c"


def test_a_line_of_ten_megabytes_arrives_in_parts_and_whole(house: House) -> None:
    house.add("long", f"{PYTHON} \"import sys; sys.stdout.write('x' * (10 << 20) + '\\n' + 'after\\n')\"")
    wait_for(lambda: house.lines("long")[-1:] == ["after"], "the line after the long one")
    parts = house.lines("long")[:-1]
    assert sum(map(len, parts)) == 10 << 20
    assert max(map(len, parts)) <= 256 * 1024
    extras = [extra for batch in house.batches for extra in batch.extras.values()]
    assert all(extra.partial for extra in extras)
    assert len(extras) == len(parts)


def test_a_burst_right_before_the_end_arrives_whole(house: House) -> None:
    house.add("burst", f"{PYTHON} \"import os; os.write(1, b'a line of the burst\\n' * 40000); os._exit(0)\"")
    house.reach("burst", "stopped")
    wait_for(lambda: len(house.lines("burst")) == 40_000, "the last line")


def test_bytes_that_are_no_text_and_characters_in_two_writes_arrive_readable(house: House) -> None:
    code = "import os, time; [(os.write(1, bytes([b])), time.sleep(0.1)) for b in '\\u20ac'.encode() + b'\\xff\\n']"
    house.add("torn", f'{PYTHON} "{code}"')
    wait_for(lambda: house.lines("torn"), "the line")
    assert house.lines("torn") == ["\u20ac\ufffd"]


def test_carriage_returns_and_nul_bytes_arrive_readable(house: House) -> None:
    house.add("odd", r"printf 'dos\r\nnul\0byte\n10%%\r50%%\r100%%\nend\n'")
    wait_for(lambda: house.lines("odd")[-1:] == ["end"], "the last line")
    said = house.lines("odd")
    assert said[0] == "dos"
    assert said[1].startswith("nul")
    assert said[1].endswith("byte")
    assert "100%" in said[-2]
    assert not any(line.endswith("\r") for line in said)
