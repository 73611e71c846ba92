"""Owns the commands `orion script ...`: one function each.

Must not know how the daemon runs a script, nor which fields and values are good.
"""

import os
from collections.abc import Iterator, Sequence
from typing import Any

from orionagent import render
from orionagent.errors import NotRunning, OrionError
from orionagent.fields import parse_assignments, script_fields
from orionagent.request import DONE, Request, report_error
from orionagent.text import escape

AT_ONCE = 16  # of the connections that the daemon keeps for operators


def script_list(request: Request) -> int:
    """`orion script list`."""
    rows = all_scripts(request)
    return request.show(rows, render.render_scripts(rows, color=request.color, columns=request.columns))


def all_scripts(request: Request) -> list[dict[str, Any]]:
    """Return the row of every script."""
    data = request.call("script:list")
    rows: list[dict[str, Any]] = data["scripts"] if isinstance(data, dict) else data
    return rows


def script_show(request: Request) -> int:
    """`orion script show`."""
    data = request.call("script:show", name=request.options["<name>"][0])
    return request.show(data, render.render_script(data, color=request.color, columns=request.columns))


def script_turn(request: Request) -> int:
    """`orion script start`, `stop` and `restart`: every name is tried, the first failure is the exit code."""
    verb = next(word for word in ("start", "stop", "restart") if request.options[word])
    names = request.options["<name>"]
    if request.options["--all"]:
        names = [row["name"] for row in all_scripts(request)]
    exit_code = DONE
    for outcome in call_for_each(request, f"script:{verb}", list(dict.fromkeys(names))):
        if isinstance(outcome, OrionError):
            failed = report_error(outcome, request.wants_json)
            exit_code = exit_code or failed
            if isinstance(outcome, NotRunning):
                break
        else:
            request.show(outcome, render.render_outcome(outcome))
    return exit_code


def call_for_each(request: Request, cmd: str, names: Sequence[str]) -> Iterator[dict[str, Any] | OrionError]:
    """Call a command for several scripts at once; yield each outcome, in the order of the names.

    Stopping takes as long as the application does: one after the other, many would take for ever.
    """
    if len(names) == 1:
        yield attempt(request, cmd, names[0])
        return
    from threading import Semaphore, Thread  # noqa: PLC0415 - most calls are for one

    outcomes: list[dict[str, Any] | OrionError | None] = [None] * len(names)
    places = Semaphore(AT_ONCE)

    def run(index: int, name: str) -> None:
        with places:
            outcomes[index] = attempt(request, cmd, name)

    threads = [Thread(target=run, args=each, daemon=True) for each in enumerate(names)]
    for thread in threads:
        thread.start()
    for index, thread in enumerate(threads):
        thread.join()
        outcome = outcomes[index]
        assert outcome is not None
        yield outcome


def attempt(request: Request, cmd: str, name: str) -> dict[str, Any] | OrionError:
    """Return what a call for one script returns or raises."""
    try:
        row: dict[str, Any] = request.call(cmd, name=name)
    except OrionError as error:
        return error
    return row


def script_add(request: Request) -> int:
    """`orion script add`."""
    row = request.call("script:add", **script_fields(request.options, os.getcwd))
    return request.show(row, render.render_outcome(row))


def script_set(request: Request) -> int:
    """`orion script set`."""
    fields = parse_assignments(request.options["<field=value>"], os.getcwd)
    row = request.call("script:update", name=request.options["<name>"][0], fields=fields)
    return request.show(row, render.render_outcome(row))


def script_remove(request: Request) -> int:
    """`orion script remove`."""
    data = request.call("script:remove", name=request.options["<name>"][0])
    return request.show(data, f"{escape(str(data['name']))}: removed\n")
