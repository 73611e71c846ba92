"""Owns what a person sees: plain values in, terminal text out.

Must not know where values come from; no clock, no terminal, no msgspec (it is on the command line's start-up
path, and the daemon itself renders `status` for callers that want nothing but text).
"""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from orionagent.text import columns_of, duration, escape, escape_lines, percent, size, style

LEVEL_STYLES = {"fatal": "1;31", "error": "31", "warn": "33", "debug": "2", "verbose": "2", "trace": "2"}
PHASE_STYLES = {
    "running": "32",
    "starting": "33",
    "backoff": "33",
    "stopping": "33",
    "crashed": "31",
    "stopped": "2",
}
LINK_STYLES = {"connected": "32", "retrying": "33", "paused": "31", "not-configured": "33"}


def script_remark(row: Mapping[str, Any]) -> str:
    """Return what the state alone does not tell: why it ended, when it comes back, what was noted."""
    parts = []
    last = row.get("lastExit")
    if last and row.get("phase") in ("crashed", "backoff", "stopped"):
        parts.append(str(last.get("text") or "ended"))
    if row.get("nextRestartSeconds") is not None:
        # Rounded up: a countdown that says 0s and goes on is a lie.
        parts.append(f"restart in {duration(-(-row['nextRestartSeconds'] // 1))}")
    if row.get("crashesInARow") and row.get("phase") in ("crashed", "backoff"):
        parts.append(f"crash {row['crashesInARow']} in a row")
    if row.get("note"):
        parts.append(str(row["note"]))
    if row.get("enabled") is False:
        parts.append("not started with the agent")
    return escape("; ".join(parts))


def render_scripts(rows: Sequence[Mapping[str, Any]], *, color: bool = False, columns: int = 0) -> str:
    """Return the table of scripts, or one sentence where there is none."""
    if not rows:
        return 'no scripts; add one with: orion script add <name> "<command>"\n'
    table = [["NAME", "STATE", "PID", "UPTIME", "RESTARTS", "CPU", "MEMORY", "REMARK"]]
    styles = {(0, x): "1" for x in range(len(table[0]))} if color else {}
    for y, row in enumerate(rows, 1):
        phase = str(row.get("phase", "-"))
        memory = row.get("memoryMb")
        table.append(
            [
                escape(str(row["name"])),
                escape(phase),
                str(row.get("pid") or "-"),
                duration(row.get("uptimeSeconds")),
                str(row.get("restarts", 0)),
                percent(row.get("cpuPercent")),
                "-" if memory is None else f"{memory:.1f} MB",
                script_remark(row),
            ]
        )
        if color and phase in PHASE_STYLES:
            styles[y, 1] = PHASE_STYLES[phase]
    return "\n".join(columns_of(table, styles, columns)) + "\n"


def render_script(data: Mapping[str, Any], *, color: bool = False, columns: int = 0) -> str:
    """Return everything about one script: state, definition, process tree, last lines."""
    parts = [render_scripts([data], color=color, columns=columns)]
    definition = data.get("definition") or {}
    if definition:
        parts.append("\nDefinition\n")
        for key, value in definition.items():
            if value is None or value in ((), [], {}):
                continue
            if isinstance(value, Mapping):
                given = ((name, inner) for name, inner in value.items() if inner is not None)
                parts.extend(f"  {key}.{name} = {escape(str(inner))}\n" for name, inner in given)
            else:
                shown = value if isinstance(value, str) else _plain(value)
                parts.append(f"  {key} = {escape(shown)}\n")
    tree = data.get("tree") or []
    if tree:
        parts.append("\nProcesses\n")
        table = [["PID", "PARENT", "MEMORY", "FILES", "COMMAND"]]
        for process in tree:
            memory = process.get("memoryMb")
            table.append(
                [
                    str(process.get("pid", "-")),
                    str(process.get("ppid", "-")),
                    "-" if memory is None else f"{memory:.1f} MB",
                    str(process.get("fds") if process.get("fds") is not None else "-"),
                    escape(str(process.get("command", ""))),
                ]
            )
        limit = max(0, columns - 2) if columns else 0
        parts.extend(f"  {line}\n" for line in columns_of(table, {}, limit))
    last = data.get("lastExit")
    if last:
        ran = last.get("ranMs")
        after = "" if ran is None else f", after {ran} ms" if ran < 1000 else f", after {duration(ran / 1000)}"
        when = f"at {last.get('at', '?')}{after}"
        parts.append(f"\nLast exit\n  {escape(str(last.get('text') or 'ended'))}\n  {escape(when)}\n")
    lines = data.get("lastLines") or []
    if lines:
        parts.append("\nLast lines\n")
        parts.extend(f"  {_last_line(line, color)}\n" for line in lines)
    return "".join(parts)


def _last_line(line: str | Mapping[str, Any], color: bool) -> str:
    return escape(line) if isinstance(line, str) else render_entry(line, color=color, indent="    ")


def _plain(value: object) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, list | tuple):
        return ", ".join(map(str, value))
    return str(value)


def render_entry(entry: Mapping[str, Any], *, color: bool = False, indent: str = "    ") -> str:
    """Return one log entry as text without a final newline; a stack trace continues under `indent`."""
    level = escape(str(entry.get("level", "info")))
    head = f"{escape(str(entry.get('timestamp', '')))} {escape(str(entry.get('source', '')))} "
    message = escape_lines(str(entry.get("message", "")), indent)
    marks = "".join(f" [{mark}]" for mark in ("partial", "damaged") if entry.get(mark))
    tags = "".join(f" #{escape(str(tag))}" for tag in entry.get("tags") or ())
    metadata = entry.get("metadata")
    shown = ""
    if metadata:
        shown = " " + " ".join(f"{escape(str(key))}={escape(_plain(value))}" for key, value in metadata.items())
    code = LEVEL_STYLES.get(level, "")
    return (
        style(head, "2", color)
        + style(f"{level:<5}", code, color)
        + f" {message}{marks}"
        + style(tags + shown, "2", color)
    )


def render_entries(entries: Iterable[Mapping[str, Any]], *, color: bool = False) -> str:
    """Return log entries, one a line (stack traces take more)."""
    return "".join(render_entry(entry, color=color) + "\n" for entry in entries)


def render_status(data: Mapping[str, Any], *, color: bool = False, columns: int = 0) -> str:
    """Return what `orion status` shows: the agent, its backend, its buffer, the machine, the scripts.

    `columns` is the terminal's width, 0 where there is none.
    """
    facts = [
        ("agent", f"{data.get('version', '?')}, pid {data.get('pid', '?')}, up {_up(data)}"),
        ("server", escape(str(data.get("hostname", "-")))),
    ]
    if data.get("configError"):
        problem = f"{data['configError']} (going on with the last good configuration)"
        facts.append(("config", style(escape(problem), "31", color)))
    if isinstance(data.get("link"), Mapping):
        facts.append(("backend", _link(data["link"], color)))
    if data.get("apiUrl"):
        project = f", project {data['project']}" if data.get("project") else ""
        facts.append(("", escape(f"{data['apiUrl']}{project}")))
    if isinstance(data.get("buffer"), Mapping):
        facts.append(("buffer", _buffer(data["buffer"], color)))
    facts.extend(_host(data.get("host") or {}))
    lines = [f"{style(f'{name:<8}', '1', color)} {value}\n" for name, value in facts]
    table = render_scripts(data.get("scripts") or (), color=color, columns=columns)
    return "".join(lines) + "\n" + table


def _up(data: Mapping[str, Any]) -> str:
    return duration(data.get("uptimeSeconds"))


def _link(link: Mapping[str, Any], color: bool) -> str:
    state = str(link.get("state", "unknown"))
    parts = [style(escape(state), LINK_STYLES.get(state, ""), color)]
    if link.get("since") is not None:
        since = link["since"]
        parts.append(f"for {duration(since)}" if isinstance(since, int | float) else f"since {escape(since)}")
    if link.get("lastError") and state != "connected":
        parts.append(escape(str(link["lastError"])))
    if link.get("nextAttemptSeconds") is not None:
        parts.append(f"next attempt in {duration(link['nextAttemptSeconds'])}")
    skew = link.get("clockSkewSeconds")
    if skew is not None and abs(skew) >= 1:
        parts.append(f"clock {duration(abs(skew))} {'behind' if skew > 0 else 'ahead of'} the backend's")
    if state == "not-configured":
        parts.append("set it up with: sudo orion setup --server")
    return ", ".join(parts)


def _buffer(buffer: Mapping[str, Any], color: bool) -> str:
    entries = buffer.get("entries", 0)
    parts = ["empty" if not entries else f"{entries} entries, {size(buffer.get('bytes'))}"]
    if entries and buffer.get("oldestAgeSeconds") is not None:
        parts.append(f"oldest {duration(buffer['oldestAgeSeconds'])}")
    for key, words in (("droppedTotal", "dropped"), ("rejectedTotal", "rejected by the backend")):
        if buffer.get(key):
            parts.append(style(f"{buffer[key]} {words}", "31", color))
    if buffer.get("memoryOnly"):
        reason = escape(str(buffer.get("diskError") or "the disk takes no data"))
        parts.append(style(f"in memory only: {reason}", "31", color))
    return ", ".join(parts)


def _host(host: Mapping[str, Any]) -> list[tuple[str, str]]:
    facts = []
    cpu, memory, disk = host.get("cpu") or {}, host.get("memory") or {}, host.get("disk") or {}
    network = host.get("network") or {}
    if cpu:
        parts = [percent(cpu.get("percent"))]
        if cpu.get("count") is not None:
            parts.append(f"of {cpu['count']:g} CPUs")
        if cpu.get("load1") is not None:
            parts.append(f"load {cpu['load1']:.2f}")
        if cpu.get("stealPercent"):
            parts.append(f"steal {percent(cpu['stealPercent'])}")
        facts.append(("cpu", ", ".join(parts)))
    if memory:
        used, total = (_scaled(memory.get(key), 1 << 20) for key in ("usedMb", "totalMb"))
        facts.append(("memory", f"{percent(memory.get('percent'))}, {size(used)} of {size(total)}"))
    if disk:
        used, total = (_scaled(disk.get(key), 1 << 30) for key in ("usedGb", "totalGb"))
        full = [mount for mount in disk.get("mounts") or () if mount.get("percent", 0) >= 90]
        parts = [f"{percent(disk.get('percent'))}, {size(used)} of {size(total)}"]
        parts += [f"{escape(str(mount['path']))} is {percent(mount['percent'])} full" for mount in full]
        facts.append(("disk", "; ".join(parts)))
    if network:
        down, up = (network.get(key) for key in ("rxBytesPerSecond", "txBytesPerSecond"))
        facts.append(("network", f"in {size(down)}/s, out {size(up)}/s"))
    if facts and host.get("scope") == "container":
        facts.append(("scope", "this container's limits, not the machine's"))
    return facts


def _scaled(value: float | None, factor: int) -> float | None:
    return None if value is None else value * factor


def render_outcome(row: Mapping[str, Any]) -> str:
    """Return the line that answers `script start` and its like: name, phase, pid, remark."""
    phase = escape(str(row.get("phase", "-")))
    parts = [phase] + ([f"pid {row['pid']}"] if row.get("pid") else [])
    remark = script_remark(row)
    return f"{escape(str(row['name']))}: {', '.join(parts)}{f' ({remark})' if remark else ''}\n"


def render_reload(data: Mapping[str, Any]) -> str:
    """Return what a reload changed, or which version it hands over to."""
    if data.get("replacedBy"):
        return f"handing over to version {escape(str(data['replacedBy']))}; the scripts go on\n"
    parts = [
        f"{word}: {', '.join(map(escape, data[word]))}" for word in ("added", "changed", "removed") if data.get(word)
    ]
    if data.get("config"):
        parts.append("configuration taken up")
    return ("; ".join(parts) or "reloaded; no script changed") + "\n"


def render_flush(data: Mapping[str, Any]) -> str:
    """Return what a flush of the buffer reached."""
    remaining = data.get("remaining", 0)
    link = data.get("link")
    state = link.get("state") if isinstance(link, Mapping) else link
    why = f", the backend is {escape(str(state))}" if remaining and state else ""
    return f"sent {data.get('sent', 0)} entries, {remaining} wait{why}\n"


def render_error(message: str, *, color: bool = False) -> str:
    """Return the line that goes to standard error."""
    return f"{style('orion:', '31', color)} {escape_lines(message, '  ')}\n"
