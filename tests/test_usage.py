"""The grammar takes every line of the guide and explains itself to those who mistype."""

import shlex
from itertools import product

import pytest
from hypothesis import given
from hypothesis import strategies as st

from orionagent.usage import (
    OPTION_SUMMARIES,
    SUMMARIES,
    Line,
    UsageError,
    commands,
    grammar_lines,
    help_text,
    parse,
    read_line,
    subcommands,
    wants_help,
)

GUIDE = """\
orion setup --server
orion setup --source
orion status
orion log info "Deploy complete"
orion log error "Disk space low"
orion script start <name>
orion script stop <name>
orion script restart <name>
orion script list
orion script add <name> <command> [--cwd <path>] [--no-auto-restart] [--no-capture]
orion script add api "node dist/index.js" --cwd /opt/myapp --no-auto-restart
"""

EVERY_COMMAND = """\
orion setup --server
orion setup --server --api-url=http://127.0.0.1:3001 --token=- --project=shop --no-browser --yes
orion setup --source
orion setup --source --name=api --command="node x.js" --token=t --project=shop --user=me
orion setup --source --no-auto-restart --no-capture --yes
orion status --watch --json
orion log --from=deploy --tag=a --tag=b --meta={} --json info done
orion log --from deploy --tag a -- info done
orion logs
orion logs api --follow --lines=10 --level=warn --json
orion logs --follow
orion script list --json
orion script show api --json
orion script start api web worker --json
orion script restart --all
orion script stop --all --json
orion script add api "sleep 9" --no-capture --user=www-data --env=A=1 --env=B=2 --set=maxRestarts=3 --json
orion script set api maxRestarts=3 user=deploy --json
orion script remove api --json
orion buffer flush --json
orion ping
orion reload --json
orion doctor --json
orion version --json
orion completion bash
orion completion zsh
orion completion fish
orion daemon
orion daemon --foreground
orion console
orion console --listen=127.0.0.1:9000 --data=/tmp/x
orion demo
"""


def words(line: str) -> list[str]:
    return shlex.split(line.replace("[", "").replace("]", ""))[1:]


@pytest.mark.parametrize("line", (GUIDE + EVERY_COMMAND).splitlines())
def test_the_grammar_takes_every_line_of_the_guide_and_every_command(line: str) -> None:
    found = parse(words(line))
    assert found[words(line)[0]]


def test_an_add_of_the_guide_keeps_its_values() -> None:
    found = parse(words(GUIDE.splitlines()[-1]))
    assert (found["<name>"], found["<command>"]) == (["api"], "node dist/index.js")
    assert (found["--cwd"], found["--no-auto-restart"], found["--no-capture"]) == ("/opt/myapp", True, False)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["info", "-x"], "-x"),
        (["info", "--json", "--tag"], "--json --tag"),
        (["info", "a", "b  c"], "a b  c"),
        (["info", "--", "-x"], "-x"),
        (["info", "--"], "--"),
        (["--", "info", "--from=x"], "--from=x"),
        (["--tag", "a", "info", "--help"], "--help"),
        (["info", ""], ""),
    ],
)
def test_what_follows_the_level_is_the_message(arguments: list[str], message: str) -> None:
    found = parse(["log", *arguments])
    assert (found["<level>"], found["<message>"]) == ("info", message)
    assert not wants_help(["log", *arguments])


@given(st.lists(st.text(), min_size=1))
def test_any_text_passes_as_a_message(rest: list[str]) -> None:
    expected = rest[1:] if rest[0] == "--" and len(rest) > 1 else rest
    assert parse(["log", "info", *rest])["<message>"] == " ".join(expected)


@given(st.lists(st.sampled_from(["log", "script", "add", "start", "--json", "-", "--", "x", "--all", "a=b", ""])))
def test_words_either_fit_or_are_explained(arguments: list[str]) -> None:
    try:
        said = repr(parse(arguments))
    except UsageError as error:
        said = str(error)
    assert said


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ([], "which command?"),
        (["statsu"], "did you mean 'status'?"),
        (["script"], "script what?"),
        (["setup"], "set up what? --server, "),
        (["script", "strat", "web"], "did you mean 'start'?"),
        (["status", "--wach"], "did you mean '--watch'?"),
        (["script", "start"], "usage:\norion script (start | stop | restart) (<name>... | --all) [--json]"),
        (["script", "add", "web", "node", "x.js"], 'quotes: orion script add web "node x.js"'),
        (["log", "eror", "x"], "did you mean 'error'?"),
        (["logs", "--level=warning"], "did you mean 'warn'?"),
        (["ping", "ping"], "orion (ping | reload | doctor | version) [--json]"),
    ],
)
def test_a_mistake_is_answered_with_what_was_probably_meant(arguments: list[str], said: str) -> None:
    with pytest.raises(UsageError) as caught:
        parse(arguments)
    assert said in str(caught.value)


@pytest.mark.parametrize("arguments", [["--help"], ["-h"], ["script", "add", "--help"], ["log", "--help"]])
def test_help_is_recognized_anywhere_but_in_a_message(arguments: list[str]) -> None:
    assert wants_help(arguments)


def test_the_grammar_s_own_parts_are_found() -> None:
    assert commands() == [
        "setup",
        "status", "log", "logs", "script", "buffer", "ping", "reload", "doctor", "version", "completion",
        "daemon", "console", "demo",
    ]  # fmt: skip
    assert subcommands("script") == ["list", "show", "start", "stop", "restart", "add", "set", "remove"]
    assert subcommands("completion") == ["bash", "zsh", "fish"]
    assert subcommands("log") == []
    assert read_line("orion script (start | stop) (<name>... | --all) [--cwd=<path>] [--json]") == Line(
        text="orion script (start | stop) (<name>... | --all) [--cwd=<path>] [--json]",
        words=(("script",), ("start", "stop")),
        options=(("--all", None), ("--cwd", "<path>"), ("--json", None)),
        arguments=("<name>",),
    )


def test_every_command_and_option_has_a_summary() -> None:
    lines = grammar_lines()
    paths = {" ".join(path) for line in lines for path in product(*line.words)} | set(commands())
    assert paths - {f"completion {shell}" for shell in ("bash", "zsh", "fish")} == set(SUMMARIES)
    assert {name for line in lines for name, _ in line.options} == set(OPTION_SUMMARIES)
    assert all(summary in help_text() for summary in SUMMARIES.values())
