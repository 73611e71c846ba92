"""What a signed-in person asks of the backend, tried on a real console."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from orionagent.backend import Backend
from orionagent.config import AgentConfig
from orionagent.errors import Permanent, Refused, Retryable
from orionagent.wizard.account import Account, Project, Source, names, refusal, said_by
from tests.console.process import ConsoleProcess
from tests.faults.fixtures import FaultyBackend


@pytest.fixture
def console(root: Path) -> Iterator[ConsoleProcess]:
    with ConsoleProcess(root / "console") as found:
        yield found


@pytest.fixture
def backend(console: ConsoleProcess) -> Iterator[Backend]:
    found = Backend(AgentConfig(apiUrl=console.url), "web1")
    yield found
    found.close()


def test_a_person_makes_project_source_and_token_and_the_token_serves_an_agent(
    console: ConsoleProcess, backend: Backend
) -> None:
    account = Account(backend, console.token)
    assert account.add_project("shop", "The Shop") == Project(name="shop", label="The Shop")
    assert "shop" in names(account.projects())
    account.add_source("shop", "api", "prod")
    assert account.sources("shop") == [Source(name="api", environment="prod")]
    for source in (None, "api"):
        token = account.make_token("shop", "for the test", source)
        entry = {"timestamp": "2026-01-02T03:04:05.000Z", "level": "info", "message": "hello"}
        console.post("/api/v1/agent/log", entry, token=token)


def test_the_backend_s_own_words_reach_the_person(console: ConsoleProcess, backend: Backend) -> None:
    account = Account(backend, console.token)
    account.add_project("shop", "")
    with pytest.raises(Permanent, match="shop"):
        account.add_project("shop", "")
    with pytest.raises(Permanent):
        account.sources("no such/project")
    with pytest.raises(Refused) as caught:
        Account(backend, "wrong-token").projects()
    assert "wrong-token" not in str(caught.value)


def test_a_backend_that_is_not_there_is_told_apart_from_one_that_refuses() -> None:
    backend = Backend(AgentConfig(apiUrl="http://127.0.0.1:1"), "web1")
    with pytest.raises(Retryable):
        Account(backend, "t").projects()
    backend.close()


@pytest.mark.parametrize("status", [400, 401, 403])
def test_the_backend_s_words_are_shown_without_the_token_and_on_one_line(status: int, faulty: FaultyBackend) -> None:
    body = r'{"message": "no \u001b[2Jsuch token: s3cret,\nBearer s3cret ' + "x" * 5000 + '"}'
    faulty.fail("status", status=status, body=body)
    backend = Backend(faulty.config(), "web1")
    with pytest.raises((Refused, Permanent), match=r": no \[2Jsuch token: \*\*\*, Bearer \*\*\* x+$") as caught:
        Account(backend, "s3cret").projects()
    assert len(caught.value.message) < 250
    backend.close()


def test_error_bodies_of_any_shape_are_survived() -> None:
    assert said_by(b'{"error":"short","message":"long"}') == "long"
    assert said_by(b'{"error":"short"}') == "short"
    assert said_by(b"<html>") == said_by(b'{"message":5}') == ""
    assert "answers 502" in str(refusal(502, "", "/projects"))
