"""Owns asking a person: with arrow keys where the terminal can, by numbers where it cannot, not at all elsewhere.

Must not know what is asked, or what becomes of the answers.
"""

import getpass
import os
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import NamedTuple, Protocol

from orionagent.errors import OrionError
from orionagent.output import put
from orionagent.text import escape

# Returns what is wrong with an answer, None when nothing is.
Check = Callable[[str], str | None]


class MissingAnswer(OrionError):
    """Nobody can be asked, and nothing on the command line answers."""

    code = "usage"


class Choice(NamedTuple):
    """One of several answers, and how it is shown."""

    value: str
    label: str


class Question(NamedTuple):
    """What is asked, and the option that answers it without asking."""

    text: str
    flag: str


class Prompts(Protocol):
    """Somebody who answers. Every call blocks until then; Ctrl-C raises KeyboardInterrupt."""

    def say(self, text: str) -> None: ...  # noqa: D102
    def select(self, question: Question, choices: Sequence[Choice], default: str | None) -> str: ...  # noqa: D102
    def text(self, question: Question, default: str, check: Check) -> str: ...  # noqa: D102
    def secret(self, question: Question) -> str: ...  # noqa: D102
    def confirm(self, question: Question, default: bool) -> bool: ...  # noqa: D102


def choose_prompts(*, unattended: bool) -> Prompts:
    """Return the best way to ask here; `unattended` (--yes) takes every default without asking."""
    if unattended:
        return NoPrompts(takes_defaults=True)
    if not (os.isatty(0) and os.isatty(1)):
        return NoPrompts(takes_defaults=False)
    if os.environ.get("TERM", "dumb") == "dumb":
        return PlainPrompts()
    # Asking the terminal where its cursor is would put errors at the foot of the screen, away from what was typed,
    # and leave the answer to the next program where the line is slow.
    os.environ.setdefault("PROMPT_TOOLKIT_NO_CPR", "1")
    try:
        import questionary  # noqa: F401, PLC0415 - half a second that only a wizard pays
    except ImportError:
        return PlainPrompts()
    return ArrowPrompts()


def say(text: str) -> None:
    """Print a line at once. Raises: as `put`."""
    put(text + "\n")


@contextmanager
def nothing_written_yet() -> Iterator[None]:
    """Tell whoever walks away by Ctrl-C meanwhile that this left nothing behind."""
    try:
        yield
    except KeyboardInterrupt:
        say("\nGiven up: nothing was written.")
        raise


class NoPrompts:
    """Nobody to ask: defaults where they may be taken, else an error that names the option."""

    def __init__(self, *, takes_defaults: bool) -> None:
        self._takes_defaults = takes_defaults

    def say(self, text: str) -> None:
        """Print a line."""
        say(text)

    def select(self, question: Question, choices: Sequence[Choice], default: str | None) -> str:  # noqa: ARG002
        """Return the default."""
        if default is None or not self._takes_defaults:
            raise self._missing(question, default)
        return default

    def text(self, question: Question, default: str, check: Check) -> str:
        """Return the default where it is a good answer."""
        if not default or not self._takes_defaults:
            raise self._missing(question, default)
        wrong = check(default)
        if wrong is not None:
            raise MissingAnswer(f"cannot take {escape(default)!r} for {question.flag}: {wrong}; give {question.flag}")
        return default

    def secret(self, question: Question) -> str:
        """Raise: a secret has no default."""
        raise self._missing(question, None)

    def confirm(self, question: Question, default: bool) -> bool:
        """Return the default."""
        if not self._takes_defaults:
            raise self._missing(question, "yes" if default else "no")
        return default

    def _missing(self, question: Question, default: str | None) -> MissingAnswer:
        what = question.text.rstrip("?: ")
        also = "" if self._takes_defaults or not default else f", or --yes for {escape(default)!r}"
        why = "--yes asks nothing and there is no default" if self._takes_defaults else "there is no terminal"
        return MissingAnswer(f"cannot ask {what!r}: {why}; give {question.flag}{also}")


class PlainPrompts:
    """Questions and answers line by line, for terminals that can do no more."""

    def say(self, text: str) -> None:
        """Print a line."""
        say(text)

    def select(self, question: Question, choices: Sequence[Choice], default: str | None) -> str:
        """Show a numbered list and return the chosen value."""
        say(question.text)
        for number, choice in enumerate(choices, 1):
            say(f"  {number}) {escape(choice.label)}")
        preset = next((n for n, choice in enumerate(choices, 1) if choice.value == default), None)
        while True:
            typed = _read_line(f"number{f' [{preset}]' if preset else ''}: ").strip() or str(preset or "")
            if typed.isascii() and typed.isdigit() and 1 <= int(typed) <= len(choices):
                return choices[int(typed) - 1].value
            say(f"  a number from 1 to {len(choices)}, please")

    def text(self, question: Question, default: str, check: Check) -> str:
        """Return a line that passes the check; the error is shown and the question repeated."""
        while True:
            typed = _read_line(f"{question.text}{f' [{escape(default)}]' if default else ''} ").strip() or default
            wrong = check(typed)
            if wrong is None:
                return typed
            say(f"  {wrong}")

    def secret(self, question: Question) -> str:
        """Return a line that is not shown."""
        return read_hidden(f"{question.text} ").strip()

    def confirm(self, question: Question, default: bool) -> bool:
        """Return whether the answer is yes."""
        while True:
            typed = _read_line(f"{question.text} [{'Y/n' if default else 'y/N'}] ").strip().lower()
            if typed in ("", "y", "yes", "n", "no"):
                return default if not typed else typed.startswith("y")
            say("  yes or no, please")


def read_hidden(prompt: str) -> str:
    """Return a line of the terminal that is not shown. Blocks; Ctrl-C and Ctrl-D raise KeyboardInterrupt."""
    try:
        return getpass.getpass(prompt)
    except EOFError:
        raise KeyboardInterrupt from None


def _read_line(prompt: str) -> str:
    put(prompt)
    line = sys.stdin.readline()
    if not line:
        raise KeyboardInterrupt  # Ctrl-D is the other way to walk away
    return line


class ArrowPrompts:
    """Questions by questionary: arrow keys, errors shown while typing."""

    def say(self, text: str) -> None:
        """Print a line."""
        say(text)

    def select(self, question: Question, choices: Sequence[Choice], default: str | None) -> str:
        """Return the value of the line that was chosen."""
        import questionary  # noqa: PLC0415

        shown = [questionary.Choice(title=escape(choice.label), value=choice.value) for choice in choices]
        preset = next((each for each in shown if each.value == default), None)
        return str(_ask(questionary.select(question.text, choices=shown, default=preset)))

    def text(self, question: Question, default: str, check: Check) -> str:
        """Return a text that passes the check."""
        import questionary  # noqa: PLC0415

        prompt = questionary.text(question.text, default=default, validate=lambda typed: check(typed.strip()) or True)
        return str(_ask(prompt)).strip()

    def secret(self, question: Question) -> str:
        """Return a text of which only dots are shown."""
        import questionary  # noqa: PLC0415

        return str(_ask(questionary.password(question.text))).strip()

    def confirm(self, question: Question, default: bool) -> bool:
        """Return whether the answer is yes."""
        import questionary  # noqa: PLC0415

        return bool(_ask(questionary.confirm(question.text, default=default)))


def _ask(prompt: object) -> object:
    try:
        return prompt.unsafe_ask()  # type: ignore[attr-defined]
    except EOFError:
        raise KeyboardInterrupt from None
