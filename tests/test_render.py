"""What a person sees: whole values, no control characters of others, colour only where it is wanted."""

import re
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from orionagent.render import (
    render_entries,
    render_entry,
    render_error,
    render_flush,
    render_outcome,
    render_reload,
    render_script,
    render_scripts,
    render_status,
)
from orionagent.text import duration, escape, size

ROW = {
    "name": "api",
    "source": "api",
    "phase": "running",
    "state": "running",
    "pid": 1234,
    "uptimeSeconds": 7384.2,
    "restarts": 2,
    "crashesInARow": 0,
    "cpuPercent": 12.34,
    "memoryMb": 80.04,
    "nextRestartSeconds": None,
    "lastExit": None,
    "note": None,
    "enabled": True,
}
CRASHED = ROW | {
    "name": "nightly-job",
    "phase": "backoff",
    "state": "crashed",
    "pid": None,
    "uptimeSeconds": None,
    "cpuPercent": None,
    "memoryMb": None,
    "crashesInARow": 3,
    "nextRestartSeconds": 3.6,
    "lastExit": {"text": "exit code 1", "code": 1, "signal": None, "at": "2026-01-02T03:04:05.000Z"},
}
STATUS: dict[str, Any] = {
    "version": "0.1.0",
    "pid": 812,
    "uptimeSeconds": 273600,
    "hostname": "web1",
    "apiUrl": "https://api.orion.dev",
    "project": "shop",
    "configError": None,
    "host": {
        "cpu": {"percent": 12.0, "count": 4.0, "load1": 0.5, "stealPercent": 0.0},
        "memory": {"usedMb": 2048.0, "totalMb": 8192.0, "percent": 25.0},
        "disk": {"usedGb": 10.0, "totalGb": 100.0, "percent": 10.0, "mounts": [{"path": "/data", "percent": 97.0}]},
        "network": {"rxBytesPerSecond": 2048.0, "txBytesPerSecond": 12.0},
        "scope": "host",
    },
    "scripts": [ROW, CRASHED],
    "link": {"state": "connected", "since": 60, "lastError": None, "nextAttemptSeconds": None, "clockSkewSeconds": 0.2},
    "buffer": {"entries": 0, "bytes": 0, "oldestAgeSeconds": None, "droppedTotal": 0, "rejectedTotal": 0},
}


def test_a_healthy_status_reads_like_this() -> None:
    assert render_status(STATUS) == (
        "agent    0.1.0, pid 812, up 3d 4h\n"
        "server   web1\n"
        "backend  connected, for 1m 0s\n"
        "         https://api.orion.dev, project shop\n"
        "buffer   empty\n"
        "cpu      12.0 %, of 4 CPUs, load 0.50\n"
        "memory   25.0 %, 2.0 GiB of 8.0 GiB\n"
        "disk     10.0 %, 10.0 GiB of 100 GiB; /data is 97.0 % full\n"
        "network  in 2.0 KiB/s, out 12 B/s\n"
        "\n"
        "NAME         STATE    PID   UPTIME  RESTARTS  CPU     MEMORY   REMARK\n"
        "api          running  1234  2h 3m   2         12.3 %  80.0 MB\n"
        "nightly-job  backoff  -     -       2         -       -        exit code 1; restart in 4s; crash 3 in a row\n"
    )


def test_a_status_in_trouble_names_every_trouble() -> None:
    data = STATUS | {
        "configError": "cannot read /etc/orion/config.json: line 3; mend it",
        "link": {
            "state": "retrying",
            "since": 9,
            "lastError": "no route",
            "nextAttemptSeconds": 31,
            "clockSkewSeconds": 75,
        },
        "buffer": {
            "entries": 10000,
            "bytes": 3 << 20,
            "oldestAgeSeconds": 400,
            "droppedTotal": 12,
            "rejectedTotal": 1,
            "memoryOnly": True,
        },
    }
    text = render_status(data)
    for words in (
        "line 3; mend it (going on with the last good configuration)",
        "retrying, for 9s, no route, next attempt in 31s, clock 1m 15s behind the backend's",
        "10000 entries, 3.0 MiB, oldest 6m 40s, 12 dropped, 1 rejected by the backend, in memory only",
    ):
        assert words in text


def test_metrics_that_cannot_be_read_are_absent() -> None:
    text = render_status(STATUS | {"host": {"memory": {"usedMb": 1.0}}})
    assert "cpu " not in text
    assert "memory   -, 1.0 MiB of -" in text


def test_a_status_needs_no_scripts_and_no_host() -> None:
    assert "no scripts; add one with" in render_status({"version": "0.1.0", "scripts": []})


def test_a_script_shows_definition_processes_and_last_lines() -> None:
    data = ROW | {
        "definition": {
            "command": "node x.js",
            "env": {"KEY": "********"},
            "autoRestart": True,
            "after": ["db"],
            "user": None,
        },
        "tree": [{"pid": 1, "ppid": 0, "command": "node x.js", "memoryMb": 3.0, "fds": 12}],
        "lastLines": ["ready\x1b[2J", {"timestamp": "T", "level": "info", "source": "api", "message": "m"}],
    }
    text = render_script(data)
    for words in (
        "  env.KEY = ********\n",
        "  autoRestart = true\n",
        "  after = db\n",
        "  ready\\x1b[2J\n",
        "  T api info  m\n",
    ):
        assert words in text
    assert "user" not in text
    assert re.search(r"^  1 +0 +3.0 MB +12 +node x.js$", text, re.MULTILINE)


@pytest.mark.parametrize(("ran_ms", "after"), [(812, ", after 812 ms"), (61_000, ", after 1m 1s"), (None, "")])
def test_the_last_end_is_shown_while_the_next_run_goes_on(ran_ms: int | None, after: str) -> None:
    ended = {"text": "exited with 3", "code": 3, "signal": None, "at": "2026-01-01T00:00:00.000Z", "ranMs": ran_ms}
    text = render_script(ROW | {"lastExit": ended})
    assert f"\nLast exit\n  exited with 3\n  at 2026-01-01T00:00:00.000Z{after}\n" in text


def test_limits_that_are_not_set_are_not_shown() -> None:
    text = render_script(ROW | {"definition": {"limits": {"nofile": 99, "core": None, "as": None}}})
    assert "  limits.nofile = 99\n" in text
    assert "None" not in text


def test_a_long_remark_ends_at_the_terminal_s_edge() -> None:
    lines = render_scripts([CRASHED | {"note": "x" * 500}], columns=80).splitlines()
    assert max(map(len, lines)) == 80
    assert max(map(len, render_scripts([CRASHED | {"note": "x" * 500}]).splitlines())) > 500


def test_an_entry_keeps_its_stack_trace_under_an_indent() -> None:
    entry = {"timestamp": "T", "level": "error", "source": "api", "message": "boom\n at x", "partial": True}
    assert render_entry(entry) == "T api error boom\n     at x [partial]"


def test_an_entry_shows_tags_and_metadata() -> None:
    entry = {
        "timestamp": "T",
        "level": "info",
        "source": "a",
        "message": "m",
        "tags": ["t"],
        "metadata": {"k": "v\x07"},
    }
    assert render_entries([entry]) == "T a info  m #t k=v\\x07\n"


@given(st.text())
def test_no_text_of_others_reaches_the_terminal_as_a_command(text: str) -> None:
    entry = {
        "timestamp": text,
        "level": text,
        "source": text,
        "message": text,
        "tags": [text],
        "metadata": {text: text},
    }
    row = ROW | {"name": text, "phase": text, "note": text}
    status = STATUS | {"hostname": text, "configError": text, "scripts": [row]}
    shown = render_entries([entry]) + render_scripts([row]) + render_status(status) + render_error(text)
    shown += render_outcome(row) + render_script(row | {"definition": {"command": text}, "lastLines": [text]})
    assert not re.search("[\x00-\x08\x0b-\x1f\x7f-\x9f\u2028\u2029\u202a-\u202e\u2066-\u2069]", shown)


@given(st.text())
def test_escaping_keeps_harmless_text_and_stays_on_one_line(text: str) -> None:
    assert "\n" not in escape(text)
    if text.isprintable():
        assert escape(text) == text


def test_colour_is_only_added_never_part_of_the_layout() -> None:
    coloured = render_status(STATUS, color=True, columns=200)
    assert "\x1b[32mrunning\x1b[0m" in coloured
    assert re.sub("\x1b\\[[0-9;]*m", "", coloured) == render_status(STATUS, columns=200)


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(None, "-"), (-3, "0s"), (0.9, "0s"), (59.9, "59s"), (60, "1m 0s"), (3600, "1h 0m"), (90061, "1d 1h")],
)
def test_spans_show_their_two_largest_units(seconds: float | None, text: str) -> None:
    assert duration(seconds) == text


@pytest.mark.parametrize(
    ("number", "text"),
    [(None, "-"), (0, "0 B"), (1023, "1023 B"), (1024, "1.0 KiB"), (5 << 40, "5.0 TiB"), (1 << 53, "8192 TiB")],
)
def test_sizes_have_binary_units(number: int | None, text: str) -> None:
    assert size(number) == text


def test_outcomes_are_one_line() -> None:
    assert render_outcome(ROW) == "api: running, pid 1234\n"
    assert render_outcome(CRASHED) == "nightly-job: backoff (exit code 1; restart in 4s; crash 3 in a row)\n"
    assert render_reload({"changed": ["a"], "added": ["b", "c"], "removed": []}) == "added: b, c; changed: a\n"
    assert render_reload({"changed": [], "added": [], "removed": []}) == "reloaded; no script changed\n"
    taken = {"changed": ["a"], "added": [], "removed": [], "config": True}
    assert render_reload(taken) == "changed: a; configuration taken up\n"
    assert render_reload({**taken, "changed": []}) == "configuration taken up\n"
    replaced = {"changed": [], "added": [], "removed": [], "replacedBy": "1.1.0"}
    assert render_reload(replaced) == "handing over to version 1.1.0; the scripts go on\n"
    assert render_flush({"sent": 3, "remaining": 2, "link": {"state": "retrying"}}) == (
        "sent 3 entries, 2 wait, the backend is retrying\n"
    )
