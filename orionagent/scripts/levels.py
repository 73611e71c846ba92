"""Owns the question which level a line of output has, told by the words at its start.

Knows nothing of pipes, JSON or stack traces; every function is pure.

Three sieves, coarse to fine, because a regular expression per line costs more than all else together: the set
of the lines' first four characters; the set of their heads where a stream repeats itself; the expression.
"""

import re
from collections.abc import Sequence
from operator import itemgetter

import msgspec

from orionagent.wire import Level

# What the first characters of a line make possible.
LEVEL, JSON, TRACE = 1, 2, 4

WORDS: dict[str, Level] = {
    "trace": "trace",
    "verbose": "verbose",
    "debug": "debug",
    "info": "info",
    "notice": "info",
    "warn": "warn",
    "warning": "warn",
    "err": "error",
    "error": "error",
    "severe": "error",
    "fatal": "fatal",
    "crit": "fatal",
    "critical": "fatal",
    "panic": "fatal",
    "alert": "fatal",
    "emerg": "fatal",
    "emergency": "fatal",
}
CODES: dict[str, Level] = {
    "VRB": "verbose",
    "DBG": "debug",
    "INF": "info",
    "WRN": "warn",
    "FTL": "fatal",
}
LETTERS: dict[str, Level] = {"D": "debug", "I": "info", "W": "warn", "E": "error", "F": "fatal", "A": "fatal"}
# RFC 5424 severities, as in the <N> that sd-daemon(3) and syslog put before a line.
SYSLOG: tuple[Level, ...] = ("fatal", "fatal", "fatal", "error", "warn", "info", "info", "debug")
# Capitalized these begin ordinary sentences ("Alert sent to ..."), so a mark must follow them.
PROSE = (
    "trace",
    "verbose",
    "debug",
    "info",
    "notice",
    "severe",
    "critical",
    "alert",
    "emergency",
    "crit",
    "emerg",
)

_DAYS = "Mon|Tue|Wed|Thu|Fri|Sat|Sun"
_MONTHS = "Jan|Feb|Mar|Apr|May|Jun|Jul|Aug|Sep|Oct|Nov|Dec"
_DATE = rf"\d{{2,4}}[-/.]\d{{1,2}}[-/.]\d{{1,4}}|\d{{1,2}}[-/ ](?:{_MONTHS})[-/ ]\d{{4}}"
_TIME = r"\d{1,2}:\d{2}:\d{2}(?:[.,:]\d+)?"
_STAMP = (
    rf"[\[(]?\ *+(?:(?:{_DAYS}),?\ +)?"
    rf"(?:(?:{_DATE})(?:[T\ _:]\ ?{_TIME})?"
    rf"|(?:{_MONTHS})\ +\d{{1,2}},?\ (?:\d{{4}},?\ )?{_TIME}(?:\ \d{{4}})?"
    rf"|{_TIME}|\d{{10,13}}(?:\.\d+)?(?!\w)|\d+\.\d{{3,}}(?!\w))"
    r"(?:Z|\ ?[+-]\d{2}:?\d{2}|\ UTC|\ GMT)?[\])]?"
)
# Between a time stamp and the level: a thread, a pid, "- name -".
_FILLER = r"(?:\[[^\]\n]{1,60}\]|\([^)\n]{1,60}\)|[\w.:/\-]{1,60}\ +-|\d{1,10})[\ \t:|\-]++"
_COLOURS = r"(?:\x1b\[[\d;]*m)*+"


def _spellings(after_stamp: bool) -> str:
    """Return the alternatives of all accepted spellings, one group a first letter."""
    spelled: set[str] = set(CODES)
    for word in WORDS:
        spelled |= {word, word.upper()}
        marked = "" if after_stamp or word not in PROSE else r"(?=[:\])|])"
        spelled.add(word.capitalize() + marked)
    letters = sorted({word[0] for word in spelled})
    groups = ("|".join(sorted((w[1:] for w in spelled if w[0] == first), reverse=True)) for first in letters)
    return "|".join(f"{first}(?:{group})" for first, group in zip(letters, groups, strict=True))


_END = r"(?![\w=@]|[.\-]\w)"
_KEYS = "time|timestamp|ts|t|date|logger|caller|app|service|host|pid|id"
_LINE = re.compile(
    rf"""
    {_COLOURS}
    (?:
        [\[(]?(?P<first>{_spellings(False)}){_END}
      | {_STAMP}[\ \t:|,\-\]]*+(?:{_FILLER}){{0,3}}?{_COLOURS}
        [\[(<]?(?:\w{{1,20}}:)?(?P<stamped>{_spellings(True)}){_END}
      | (?:(?:{_KEYS})=(?:"[^"\n]{{0,60}}"|[^\s"]{{0,60}})\ +){{0,3}}+(?:level|lvl|severity)=["\[]?
        (?P<key>{_spellings(True)})(?!\w)
      | <(?P<syslog>\d{{1,3}})>
      | (?P<letter>[DIWEFA])(?:\d{{4}}\ \d{{2}}:\d{{2}}:|,\ \[\d)
    )
    """,
    re.VERBOSE,
)

_BY_WORD: dict[str, Level | None] = {"": None, **CODES, **LETTERS}
for _word, _level in WORDS.items():
    _BY_WORD |= {_word: _level, _word.upper(): _level, _word.capitalize(): _level}

_STARTS = (
    *WORDS,
    *(code.lower() for code in CODES),
    *(word.lower() for word in f"{_DAYS}|{_MONTHS}|{_KEYS}|level|lvl|severity|D|I|W|E|F|A".split("|")),
)
_TRACE_STARTS = ("Trac", "pani", "goro", "fata", "SIG", "Caus", " ", "\t")
_HEAD = itemgetter(slice(0, 4))
_DIGITS = str.maketrans("123456789", "000000000")


def word_level(word: str) -> Level | None:
    """Return the level that a program's own name for it means, in any case; None for an unknown name."""
    return WORDS.get(word.lower()) or CODES.get(word.upper())


def number_level(number: float) -> Level:
    """Return the level behind a number: pino's and bunyan's 10 to 60, below 10 syslog's 0 to 7."""
    if 0 <= number < 10:
        return SYSLOG[min(int(number), 7)]
    order: tuple[Level, ...] = ("trace", "debug", "info", "warn", "error", "fatal")
    return order[min(max(int(number) // 10, 1), 6) - 1]


def kind_of(head: str) -> int:
    """Return what a line with these first four characters may be (LEVEL, JSON, TRACE); 0 is plain text."""
    first = head[:1]
    if first == "{":
        return JSON
    kind = TRACE if head.startswith(_TRACE_STARTS) else 0
    if not first.isalpha():
        return kind | (LEVEL if first.isdecimal() or first in ("[", "(", "<", "\x1b") else 0)
    letters = ""
    for character in head:
        if not character.isalpha():
            break
        letters += character.lower()
    if letters == head.lower() and len(head) == 4:
        return kind | (LEVEL if any(word.startswith(letters) for word in _STARTS) else 0)
    return kind | (LEVEL if letters in _STARTS else 0)


class _Kinds(dict[str, int]):
    """Remembers `kind_of`; bounded, since heads may be anything."""

    def __missing__(self, head: str) -> int:
        if len(self) >= 8192:
            self.clear()
        kind = self[head] = kind_of(head)
        return kind


_kinds = _Kinds()


def level_of(line: str) -> Level | None:
    """Return the level that the start of this line names, or None."""
    if not _kinds[line[:4]] & LEVEL:
        return None
    found = _LINE.match(line)
    return None if found is None else _meaning(found)


def _meaning(found: re.Match[str]) -> Level | None:
    syslog = found["syslog"]
    if syslog is not None:
        return SYSLOG[int(syslog) & 7]
    return _BY_WORD[found[found.lastgroup or 0]]


class Reading(msgspec.Struct, frozen=True, kw_only=True):
    """What some lines are: their kinds or'ed, and their levels, one for all when no line names one."""

    kinds: int
    levels: Level | list[Level]


class LevelReader:
    """Reads the levels of many lines at once.

    `default` is the level of a line that names none. Sole writer of `_width`: how many characters the level
    word lately ended after. Lines of one program repeat their heads (the same time stamp to the millisecond,
    one of four words), so that each distinct head is looked at once.
    """

    def __init__(self, default: Level = "info") -> None:
        self._default = default
        self._width = 0
        self._pause = 0

    def read(self, lines: Sequence[str]) -> Reading:
        """Return what these lines are."""
        if self._width and not self._pause and len(lines) >= 64:
            reading = self._read_heads(lines)
            if reading is not None:
                return reading
            self._pause = 16
        self._pause = max(0, self._pause - 1)
        kinds = 0
        for head in set(map(_HEAD, lines)):
            kinds |= _kinds[head]
        if not kinds & LEVEL:
            return Reading(kinds=kinds, levels=self._default)
        levels = self._read_lines(lines)
        return Reading(kinds=kinds, levels=levels)

    def _read_heads(self, lines: Sequence[str]) -> Reading | None:
        """Return the reading by distinct heads, or None where they differ too much for that to pay."""
        width, kinds, default = self._width, 0, self._default
        heads = list(map(itemgetter(slice(0, width)), lines))
        known: dict[str, Level] = dict.fromkeys(heads, default)
        if len(known) * 8 > len(heads):
            joined = "\n".join(heads)
            if "<" in joined or not joined.isascii():
                return None
            # No level depends on which digits stand in a time stamp.
            heads = joined.translate(_DIGITS).split("\n")
            known = dict.fromkeys(heads, default)
            if len(known) * 8 > len(heads):
                return None
        open_heads: set[str] = set()
        for head in known:
            kind = _kinds[head[:4]]
            kinds |= kind
            if not kind & LEVEL:
                continue
            found = _LINE.match(head)
            # A word at the very end of the head may go on behind it.
            if found is not None and found.end() <= width - 3:
                known[head] = _meaning(found) or default
            else:
                open_heads.add(head)
        levels = list(map(known.__getitem__, heads))
        if open_heads:
            for index, head in enumerate(heads):
                if head in open_heads:
                    levels[index] = level_of(lines[index]) or default
        return Reading(kinds=kinds, levels=levels)

    def _read_lines(self, lines: Sequence[str]) -> list[Level]:
        """Return one level per line and learn from the first how wide this stream's heads are."""
        possible = [index for index, line in enumerate(lines) if _kinds[line[:4]] & LEVEL]
        levels = [self._default] * len(lines)
        for index in possible:
            levels[index] = level_of(lines[index]) or self._default
        sample = _LINE.match(lines[possible[0]])
        if sample is not None and sample.end() <= 60:
            self._width = sample.end() + 6
        return levels
