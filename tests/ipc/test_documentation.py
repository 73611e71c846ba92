"""Every example of docs/ipc.md is sent to a real socket, and its answer has the shape that the page shows."""

import json
import re
from pathlib import Path
from typing import Any

import pytest

from orionagent.handlers import make_commands
from orionagent.ipc.access import Access
from orionagent.paths import Paths
from tests.ipc.stand_ins import Fixture, serving

PAGE = (Path(__file__).parents[2] / "docs" / "ipc.md").read_text(encoding="utf-8")
EXAMPLES = [fence.strip().split("\n") for fence in re.findall(r"^```ipc\n(.*?)^```", PAGE, re.MULTILINE | re.DOTALL)]
HEADING = re.compile(r"^### (?P<names>.+) · (?P<level>\w+)", re.MULTILINE)
FIELD_ROW = re.compile(r"^\| `(\w+)`", re.MULTILINE)


def shape_of(value: Any) -> Any:
    """Return nested keys; a list counts by its first element, any other value not at all."""
    match value:
        case dict():
            return {key: shape_of(inner) for key, inner in value.items() if key not in {"host", "diskError"}}
        case [first, *_]:
            return [shape_of(first)]
        case _:
            return None


def exchange(fixture: Fixture, example: list[str]) -> list[Any]:
    """Send an example's request in its framing and read as many answers as it shows."""
    request = json.loads(example[0])
    with fixture.connect() as talk:
        if isinstance(request, dict):
            talk.send(example[0].encode() + b"\n")
            return [talk.read_line() for _ in example[1:]]
        return [talk.ask_rpc(*request[1:]), *(talk.read_message() for _ in example[2:])]


@pytest.mark.parametrize("example", EXAMPLES, ids=lambda example: example[0][:60])
def test_an_example_is_answered_as_the_page_shows(example: list[str], paths: Paths) -> None:
    shown = [json.loads(line) for line in example[1:]]
    with serving(paths) as fixture:
        answers = exchange(fixture, example)
    for answer, promised in zip(answers, shown, strict=True):
        if isinstance(promised, list):
            assert answer[:2] == promised[:2]
            assert answer[2] == promised[2] or promised[0] == 2
            assert shape_of(answer[-1]) == shape_of(promised[-1])
        elif promised["ok"]:
            assert shape_of(answer) == shape_of(promised)
        else:
            assert answer == promised


def test_the_page_has_every_command_with_its_level_and_fields(paths: Paths) -> None:
    commands = make_commands(Fixture(paths).services)
    sections = re.split(r"^### ", PAGE, flags=re.MULTILINE)
    documented: dict[str, tuple[str, str]] = {}
    for heading in HEADING.finditer(PAGE):
        body = next(text for text in sections if f"### {text}".startswith(heading[0]))
        documented.update((name, (heading["level"], body)) for name in re.findall(r"`([\w:]+)`", heading["names"]))
    assert set(documented) == set(commands)
    for name, command in commands.items():
        level, body = documented[name]
        assert Access[level.upper()] is command.access, name
        if command.params is not None:
            fields = command.params.__struct_fields__
            assert [row for row in FIELD_ROW.findall(body) if row in fields] == [*fields], name


def test_every_command_has_an_example() -> None:
    requests = [json.loads(example[0]) for example in EXAMPLES]
    named = {request["cmd"] if isinstance(request, dict) else request[2] for request in requests}
    everything = set(re.findall(r"`([\w:]+)`", " ".join(heading["names"] for heading in HEADING.finditer(PAGE))))
    assert everything - named == set()
