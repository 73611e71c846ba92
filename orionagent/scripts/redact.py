"""Owns the removal of secrets from output lines.

Knows nothing of where lines come from or go to; it is pure. Works a line at a time: a secret that is broken
over two lines, or over the cut of an overlong line at a place without white space, is not recognized.
"""

import re
from collections.abc import Sequence
from itertools import repeat

from orionagent.errors import ConfigError
from orionagent.scripts.search import contains_word, rarest_letter

MASK = "[redacted]"


class Rule:
    """A pattern, what stays of a match, and the words one of which every match contains (none: unknown)."""

    def __init__(self, pattern: str, replacement: str, gates: tuple[str, ...] = ()) -> None:
        self.pattern = re.compile(pattern)
        self.replacement = replacement
        self.gates = gates
        self.raw_gates = tuple(gate.encode() for gate in gates)
        self._letters = tuple(rarest_letter(gate) for gate in self.raw_gates)

    def may_match(self, chunk: bytes) -> bool:
        """Tell, cheaply, whether this rule can match in the chunk."""
        if not self.raw_gates:
            return True
        return any(map(contains_word, repeat(chunk), self.raw_gates, self._letters))


# A value: quoted (inside a JSON string the quotes carry a backslash) or up to the next separator. The quotes
# stay, so that JSON stays JSON.
_VALUE = r"""(?:(\\")[^"\\]*|(\\')[^'\\]*|(")(?:[^"\\]|\\.)*|(')(?:[^'\\]|\\.)*|[^\s"',;&}\\]+)"""
_ASSIGN = r"""\\?["']?\s{0,4}(?:=>|[=:])\s{0,4}"""

DEFAULT_RULES = (
    Rule(
        r"\b((?i:bearer)\s+)[\w\-.~+/]{8,}=*",
        rf"\1{MASK}",
        ("earer", "EARER"),
    ),
    Rule(r"\b(?:AKIA|ASIA)[A-Z0-9]{16}\b", MASK, ("AKIA", "ASIA")),
    Rule(
        rf"((?i:secret_?access_?key|secret_?key){_ASSIGN}){_VALUE}",
        rf"\1\2\3\4\5{MASK}",
        ("ecret", "ECRET"),
    ),
    Rule(
        rf"((?i:passw(?:or)?d|passwrd){_ASSIGN}){_VALUE}",
        rf"\1\2\3\4\5{MASK}",
        ("assw", "ASSW"),
    ),
)


class Redactor:
    """Replaces secrets by `[redacted]`.

    `patterns` are regular expressions whose whole match is replaced, one line at a time; None means the
    defaults: bearer tokens, AWS keys, `password=` and its kin. An empty list switches redaction off. A
    pattern of one's own costs up to a microsecond a line, the defaults next to nothing.

    Raises:
        ConfigError: a pattern is no regular expression.
    """

    def __init__(self, patterns: Sequence[str] | None = None) -> None:
        self.rules: tuple[Rule, ...] = DEFAULT_RULES
        self.reconfigure(patterns)

    def reconfigure(self, patterns: Sequence[str] | None) -> None:
        """Use other patterns from the next line on, for everybody who holds this object.

        Raises:
            ConfigError: a pattern is no regular expression; the rules stay as they are.
        """
        if patterns is None:
            self.rules = DEFAULT_RULES
            return
        rules = []
        for pattern in patterns:
            try:
                rules.append(Rule(pattern, MASK))
            except re.error as error:
                raise ConfigError(
                    f"cannot use the redact pattern {pattern!r}: {error}; correct the regular expression"
                ) from None
        self.rules = tuple(rules)

    def redact(self, text: str) -> str:
        """Return one line without its secrets."""
        for rule in self.rules:
            if not rule.gates or any(gate in text for gate in rule.gates):
                text = rule.pattern.sub(rule.replacement, text)
        return text

    def redact_lines(self, chunk: bytes, lines: list[str]) -> None:
        """Replace, in place, the secrets in the lines of a chunk."""
        for rule in self.rules:
            if not rule.may_match(chunk):
                continue
            sub, replacement = rule.pattern.sub, rule.replacement
            if not rule.gates:
                lines[:] = [sub(replacement, line) for line in lines]
                continue
            for gate in rule.gates:
                for index in [index for index, line in enumerate(lines) if gate in line]:
                    lines[index] = sub(replacement, lines[index])

    def safe_cut(self, tail: bytes) -> int:
        """Return where the end of a part of an overlong line should be cut, as an index into `tail`.

        Behind the last white space and before a word that a secret may follow, so that the secret is whole
        in the next part; at the very end where there is no such place.
        """
        cut = max(tail.rfind(b" "), tail.rfind(b"\t")) + 1 or len(tail)
        for rule in self.rules:
            for gate in rule.raw_gates:
                found = tail.rfind(gate, 0, cut)
                if found > 0:
                    # The gate may stand inside its word: go back to the word's start.
                    cut = max(tail.rfind(b" ", 0, found), tail.rfind(b"\t", 0, found)) + 1 or found
        return cut or len(tail)
