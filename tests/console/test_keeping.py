"""What is kept and for how long; when silence means offline; when nobody answers a command. With a set clock."""

import sqlite3
from collections.abc import Iterator
from pathlib import Path

import gevent
import pytest
from gevent import monkey

from orionagent.console.accounts import Accounts
from orionagent.console.alarms import Alarms, Rule
from orionagent.console.commands import Commands
from orionagent.console.fleet import Fleet
from orionagent.console.logbook import Filter, Logbook, NewEntry
from orionagent.console.reader import Reader
from orionagent.console.schema import open_database
from orionagent.console.store import PRUNE_STEP, Retention, Store
from orionagent.console.tokens import Tokens
from orionagent.errors import OrionError
from orionagent.wire import Alert, Cpu, Heartbeat, ScriptReport

NOON = 1_700_000_000.0
Signal = monkey.get_original("threading", "Event")
"""Between real threads: gevent's own belongs to one of them."""


class Clock:
    """A clock that stands until it is set."""

    def __init__(self) -> None:
        self.now = NOON

    def __call__(self) -> float:
        return self.now


class Parts:
    """A store with everything over it, on a clock that the test sets."""

    def __init__(self, folder: Path, **keep: float) -> None:
        self.clock = Clock()
        self.store = Store(str(folder / "db"), clock=self.clock, retention=Retention(**keep))  # type: ignore[arg-type]
        self.accounts = Accounts(self.store)
        self.tokens = Tokens(self.store, self.accounts, "token")
        self.project = self.accounts.home_project_id
        self.fleet = Fleet(self.store)
        self.commands = Commands(self.store)
        self.reader = Reader(self.store.path)
        self.logbook = Logbook(self.store, self.reader)
        self.alarms = Alarms(self.store)
        self.source = self.fleet.source_for(self.project, "api")

    def close(self) -> None:
        self.reader.close()
        self.store.close()

    def log(self, count: int, *, level: str = "info", timestamp: str | None = None) -> None:
        entries = [NewEntry(level=level, message=str(number), timestamp=timestamp) for number in range(count)]
        levels = frozenset(("info", "error"))
        self.logbook.add(self.project, entries, {None: self.source}, server_id=None, instance=None, levels=levels)

    def messages(self) -> list[str]:
        found = self.logbook.search(Filter(source_ids=[self.source], limit=10_000))
        return [entry["message"] for entry in found]

    def beat(self, *states: str, stopping: bool = False, cpu: float | None = None) -> int:
        scripts = [ScriptReport(name=f"s{number}", source="api", state=state) for number, state in enumerate(states)]  # type: ignore[arg-type]
        beat = Heartbeat(
            hostname="h",
            agentVersion="1",
            bootId="b",
            timestamp="",
            scripts=scripts,
            stopping=stopping,
            cpu=Cpu(percent=cpu),
        )
        return self.fleet.take_heartbeat(self.project, beat, ip=None)

    def status(self) -> str:
        return self.fleet.server_status(self.fleet.server_row(self.project, "h"))


@pytest.fixture
def parts(root: Path) -> Iterator[Parts]:
    made = Parts(root)
    yield made
    made.close()


def test_the_oldest_entries_beyond_the_count_go(root: Path) -> None:
    parts = Parts(root, log_entries=100)
    parts.log(250)
    assert parts.store.prune() == 150
    assert parts.messages() == [str(number) for number in range(150, 250)]
    assert parts.store.prune() == 0
    parts.close()


def test_a_large_surplus_goes_in_steps(root: Path) -> None:
    parts = Parts(root, log_entries=10)
    parts.log(PRUNE_STEP + 5_010)
    assert [parts.store.prune() for _ in range(3)] == [PRUNE_STEP, 5_000, 0]
    assert len(parts.messages()) == 10
    parts.close()


def test_entries_that_are_too_old_go_and_their_counts_stay_for_the_charts(root: Path) -> None:
    parts = Parts(root, log_age_s=3600)
    parts.log(5)
    parts.clock.now += 7200
    parts.log(2)
    assert parts.store.prune() == 5
    assert len(parts.messages()) == 2
    assert sum(parts.logbook.counts([parts.source], NOON - 3600).values()) == 7
    parts.close()


def test_an_entry_from_a_wrong_clock_does_not_keep_the_others_from_going(root: Path) -> None:
    parts = Parts(root, log_age_s=3600)
    parts.log(1, timestamp="2099-01-01T00:00:00Z")
    parts.log(5)
    parts.clock.now += 7200
    assert parts.store.prune() == 5
    assert parts.messages() == ["0"]
    parts.close()


def test_entries_that_are_too_old_go_in_steps_whatever_source_they_are_of(root: Path) -> None:
    parts = Parts(root, log_age_s=3600)
    for name in ("web", "db"):
        parts.source = parts.fleet.source_for(parts.project, name)
        parts.log(PRUNE_STEP // 2 + 500)
    parts.clock.now += 7200
    assert [parts.store.prune() for _ in range(3)] == [PRUNE_STEP, 1_000, 0]
    parts.close()


def test_looking_for_entries_that_are_too_old_costs_the_same_however_many_are_kept(parts: Parts) -> None:
    def cost() -> int:
        steps = 0

        def count() -> None:
            nonlocal steps
            steps += 1

        parts.store._connection.set_progress_handler(count, 1)
        assert parts.store.prune() == 0
        parts.store._connection.set_progress_handler(None, 1)
        return steps

    parts.log(50)
    few = cost()
    parts.log(5_000)
    assert cost() < few + 50


def test_samples_are_kept_for_a_day(parts: Parts) -> None:
    server = parts.beat(cpu=1.0)
    parts.clock.now += 90_000
    parts.beat(cpu=2.0)
    parts.store.prune()
    assert [row[1] for row in parts.fleet.samples(server, 0)] == [2.0]


def test_three_missed_heartbeats_mean_offline(parts: Parts) -> None:
    parts.beat("running")
    parts.clock.now += 30
    parts.beat("running")
    parts.clock.now += 89
    assert parts.status() == "online"
    assert [place["status"] for place in parts.fleet.placements()] == ["started"]
    parts.clock.now += 2
    assert parts.status() == "offline"
    assert [place["status"] for place in parts.fleet.placements()] == ["stopped"]
    parts.clock.now += 31 * 86400
    assert parts.status() == "archived"


def test_an_agent_that_reports_rarely_may_be_silent_longer(parts: Parts) -> None:
    parts.beat("running")
    parts.clock.now += 300
    parts.beat("running")
    parts.clock.now += 600
    assert parts.status() == "online"
    assert [place["status"] for place in parts.fleet.placements()] == ["started"]


@pytest.mark.parametrize(
    ("states", "server", "source"),
    [
        (("running", "running"), "online", "started"),
        (("running", "crashed"), "partial", "partial"),
        (("stopped", "crashed"), "partial", "stopped"),
    ],
)
def test_statuses_follow_the_scripts(parts: Parts, states: tuple[str, ...], server: str, source: str) -> None:
    parts.beat(*states)
    assert parts.status() == server
    assert [place["status"] for place in parts.fleet.placements()] == [source]


def test_a_script_that_is_no_longer_reported_is_gone(parts: Parts) -> None:
    parts.beat("running")
    parts.beat()
    assert parts.fleet.placements() == []


def test_uptime_counts_silence_as_down(parts: Parts) -> None:
    for minute in range(10):
        parts.clock.now = NOON + minute * 60
        parts.beat("running" if minute < 6 else "crashed")
    assert parts.fleet.uptime_percent([parts.source], NOON - 3600) == 60.0
    parts.clock.now = NOON + 19 * 60
    assert parts.fleet.uptime_percent([parts.source], NOON - 3600) == 30.0
    assert parts.fleet.uptime_percent([], NOON) is None


def test_a_command_that_nobody_takes_is_overdue_after_two_minutes(parts: Parts) -> None:
    server = parts.beat("running")
    parts.commands.add(server, "stop", None)
    parts.clock.now += 119
    assert parts.commands.overdue() == []
    parts.clock.now += 2
    (row,) = parts.commands.overdue()
    settled = parts.commands.settle(parts.project, row["id"], None, ok=False)
    assert settled is not None
    assert settled["status"] == "failed"
    assert parts.commands.overdue() == []


def test_a_silenced_rule_stays_quiet_until_the_silence_ends(parts: Parts) -> None:
    rule = Rule(name="r", level="error", threshold=2, window_seconds=60, source_id=None, channels=[], enabled=True)
    parts.alarms.put_rule(parts.project, rule)
    arrived = {(parts.source, "error")}
    parts.log(2, level="error")
    ((alert, _),) = parts.alarms.fire_rules(parts.project, arrived, None)
    parts.alarms.silence(parts.project, alert["id"], "2h")
    parts.clock.now += 120
    parts.log(2, level="error")
    assert parts.alarms.fire_rules(parts.project, arrived, None) == []
    parts.clock.now += 7200
    assert parts.alarms.alerts(parts.project)[0]["status"] == "active"
    parts.log(2, level="error")
    assert len(parts.alarms.fire_rules(parts.project, arrived, None)) == 1


def test_old_entries_that_arrive_late_do_not_fire_a_rule(parts: Parts) -> None:
    rule = Rule(name="r", level="error", threshold=1, window_seconds=60, source_id=None, channels=[], enabled=True)
    parts.alarms.put_rule(parts.project, rule)
    parts.log(5, level="error", timestamp="2020-01-01T00:00:00Z")
    assert parts.alarms.fire_rules(parts.project, {(parts.source, "error")}, None) == []


def test_tokens_and_sign_in_requests_expire(parts: Parts) -> None:
    token = parts.tokens.issue_user_token(parts.accounts.operator, "session")
    parts.tokens.begin_cli_login("state", 7777)
    assert parts.tokens.user_of(token) is not None
    parts.clock.now += 601
    with pytest.raises(OrionError, match="expired"):
        parts.tokens.confirm_cli_login(parts.accounts.operator, "state")
    parts.clock.now += 31 * 86400
    assert parts.tokens.user_of(token) is None
    assert parts.tokens.user_of("token") is not None  # the console's own


def test_no_secret_is_kept_in_clear(parts: Parts, root: Path) -> None:
    session = parts.tokens.issue_user_token(parts.accounts.operator, "session")
    device = parts.tokens.add_api_token(parts.project, "t", (), None).token
    parts.close()
    kept = (root / "db").read_bytes()
    for secret in (session, device, "token\n"):
        assert secret.encode() not in kept


def test_merged_alerts_keep_their_details(parts: Parts) -> None:
    alert = Alert(
        id="1", timestamp="t", hostname="h", script="s", source="api", message="m", cause="oom-kill", repeated=7
    )
    assert parts.alarms.take_alert(parts.project, alert) is not None
    assert parts.alarms.take_alert(parts.project, alert) is None
    assert b'"repeated":7' in bytes(parts.alarms.alerts(parts.project)[0]["details"])


def test_a_timestamp_that_cannot_be_read_does_not_lose_the_entry(parts: Parts) -> None:
    parts.log(1, timestamp="yesterday, I think")
    (entry,) = parts.logbook.search(Filter(source_ids=[parts.source]))
    assert entry["timestamp"].startswith("2023-11-14T")


def test_a_time_that_an_older_console_kept_and_nobody_can_write_does_not_spoil_the_search(parts: Parts) -> None:
    parts.log(3)
    for number, at in ((1, -62_135_600_400_000), (3, 253_402_304_399_000)):
        parts.store.run("UPDATE logs SET at = ? WHERE id = ?", at, number)
    found = parts.logbook.search(Filter(source_ids=[parts.source]))
    assert [entry["message"] for entry in found] == ["0", "1", "2"]
    # The fraction of a second is beyond what a float tells so far away.
    assert [entry["timestamp"][:19] for entry in found[::2]] == ["0001-01-01T00:00:00", "9999-12-31T23:59:59"]


def test_a_search_waits_for_its_turn_while_entries_are_taken(root: Path) -> None:
    parts = Parts(root)
    busy, going = Signal(), Signal()
    one_thread = Reader(parts.store.path, threads=1)
    logbook = Logbook(parts.store, one_thread)
    parts.log(3)

    def occupy(_connection: sqlite3.Connection) -> None:
        busy.set()
        assert going.wait(30)

    first = gevent.spawn(one_thread.ask, occupy)
    search = gevent.spawn(logbook.search, Filter(source_ids=[parts.source], text="4"))
    while not busy.is_set():
        gevent.sleep(0.001)
    parts.log(5)  # the loop is free, and so is the writer
    assert not search.ready()
    going.set()
    assert [entry["message"] for entry in search.get(timeout=30)] == ["4"]
    first.get(timeout=30)
    one_thread.close()
    parts.close()


def test_a_question_that_fails_tells_its_asker_and_the_next_one_is_answered(parts: Parts) -> None:
    for _ in range(3):
        with pytest.raises(sqlite3.OperationalError, match="no such table"):
            parts.reader.ask(lambda connection: connection.execute("SELECT * FROM nowhere"))
    with pytest.raises(sqlite3.OperationalError, match="readonly"):
        parts.reader.ask(lambda connection: connection.execute("DELETE FROM logs"))
    assert parts.messages() == []


def test_a_database_that_cannot_be_used_is_named(root: Path) -> None:
    path = root / "db"
    path.write_bytes(b"this is not a database, surely" * 100)
    with pytest.raises(OrionError, match=f"cannot use {path}"):
        open_database(str(path))
    other = root / "newer"
    connection = open_database(str(other))
    connection.execute("PRAGMA user_version = 99")
    connection.close()
    with pytest.raises(OrionError, match="schema 99"):
        open_database(str(other))
