"""Owns how values become terminal text: control characters, colours, units, columns.

Must not know what the values are about; no clock, no terminal, no imports beyond types.
"""

from collections.abc import Mapping, Sequence

# Bytes that a log line must not hand to the terminal: C0 (newline and tab are laid out by us), DEL, C1, and
# the marks that reorder or hide text.
_UNSAFE = (*range(0x20), *range(0x7F, 0xA0), 0x2028, 0x2029, *range(0x202A, 0x202F), *range(0x2066, 0x206A))
ESCAPES = {code: f"\\x{code:02x}" if code < 0x100 else f"\\u{code:04x}" for code in _UNSAFE}
del ESCAPES[0x09]


def escape(text: str) -> str:
    r"""Return `text` on one line with every control character shown as `\x1b` instead of obeyed."""
    return text.translate(ESCAPES)


def escape_lines(text: str, indent: str) -> str:
    """Return `text` with its line breaks kept (continued under `indent`) and all else made harmless."""
    return f"\n{indent}".join(escape(line) for line in text.split("\n"))


def style(text: str, code: str, color: bool) -> str:
    """Wrap `text` in the SGR `code`, or return it as it is where colour is not wanted."""
    return f"\x1b[{code}m{text}\x1b[0m" if color and code else text


def duration(seconds: float | None) -> str:
    """Return a span as its two largest units: `3d 4h`, `2m 5s`, `12s`; `-` where it is unknown."""
    if seconds is None:
        return "-"
    left = max(0, int(seconds))
    parts: list[str] = []
    for span, unit in ((86400, "d"), (3600, "h"), (60, "m"), (1, "s")):
        if left >= span or parts or unit == "s":
            parts.append(f"{left // span}{unit}")
            left %= span
        if len(parts) == 2:
            break
    return " ".join(parts)


def size(number: float | None, suffix: str = "B") -> str:
    """Return a number of bytes with a binary unit, three significant digits."""
    if number is None:
        return "-"
    value, units = float(number), ["Ti", "Gi", "Mi", "Ki", ""]
    while value >= 1024 and len(units) > 1:
        value /= 1024
        units.pop()
    digits = 0 if value >= 100 or not units[-1] else 1
    return f"{value:.{digits}f} {units[-1]}{suffix}"


def percent(value: float | None) -> str:
    """Return a share with one digit, `-` where it is unknown."""
    return "-" if value is None else f"{value:.1f} %"


def columns_of(rows: Sequence[Sequence[str]], styles: Mapping[tuple[int, int], str], limit: int) -> list[str]:
    """Lay out `rows` in aligned columns; `styles` maps (row, column) to an SGR code.

    `limit` is the terminal's width: the last column is cut there, 0 means never.
    """
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = []
    for y, row in enumerate(rows):
        used, cells = 0, []
        for x, cell in enumerate(row):
            last = x == len(row) - 1
            if last and limit and used + len(cell) > limit:
                cell = cell[: max(0, limit - used - 1)] + ("~" if limit > used else "")  # noqa: PLW2901
            padding = "" if last else " " * (widths[x] - len(cell) + 2)
            cells.append(style(cell, styles.get((y, x), ""), True) + padding)
            used += widths[x] + 2
        lines.append("".join(cells).rstrip())
    return lines
