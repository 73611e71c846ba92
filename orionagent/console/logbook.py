"""Owns the log entries: bulk insertion without duplicates, search, counts per hour, tags.

Knows nothing of HTTP, tokens or who may read.
"""

import sqlite3
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from typing import Annotated, Any

import msgspec

from orionagent.console.reader import Reader
from orionagent.console.store import EARLIEST_MS, LATEST_MS, Store, iso

PARTIAL, DAMAGED = 1, 2
SEARCH_LIMIT = 10_000

_INSERT = (
    "INSERT INTO logs (source_id, server_id, at, level, message, stream, metadata, tags, flags,"
    " instance_id, seq) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)"
)
_SELECT = (
    "SELECT logs.*, sources.name AS source, servers.hostname AS server FROM logs"
    " JOIN sources ON sources.id = logs.source_id LEFT JOIN servers ON servers.id = logs.server_id"
)


class NewEntry(msgspec.Struct, kw_only=True, gc=False):
    """One entry as a device sends it; `metadata` stays the text it came as."""

    level: str
    message: str
    timestamp: str | None = None
    seq: Annotated[int, msgspec.Meta(ge=0, le=2**53)] | None = None
    source: str | None = None
    stream: str | None = None
    metadata: msgspec.Raw = msgspec.Raw(b"")
    tags: tuple[str, ...] | None = None
    partial: bool = False
    damaged: bool = False


class Stored(msgspec.Struct, frozen=True, kw_only=True):
    """What became of a request's entries: those kept, with the ids that the database gave them."""

    first_id: int
    kept: list[tuple[NewEntry, int, int]]
    """(entry, source id, Unix milliseconds) in order; the n-th one has the id `first_id + n`."""
    duplicates: int
    dropped: int


class Filter(msgspec.Struct, frozen=True, kw_only=True):
    """A search: empty means "any". Times are Unix milliseconds, `until_ms` exclusive."""

    source_ids: Sequence[int]
    levels: Sequence[str] = ()
    servers: Sequence[str] = ()
    tags: Sequence[str] = ()
    text: str = ""
    from_ms: int | None = None
    until_ms: int | None = None
    before_id: int | None = None
    """Only what stands above this entry: earlier, or of the same time and arrived earlier."""
    limit: int = 500


def to_milliseconds(text: str | None, now_s: float) -> int:
    """Read an RFC 3339 time; what is missing or unreadable is now (a log must not be lost over its clock).

    Unreadable is also what its UTC offset takes out of the years that can be written again.
    """
    if text is not None:
        try:
            read = round(datetime.fromisoformat(text).timestamp() * 1000)
        except (ValueError, OverflowError):
            pass
        else:
            if EARLIEST_MS <= read <= LATEST_MS:
                return read
    return round(now_s * 1000)


class Logbook:
    """The entries of all projects. Sole writer of logs, log_counts, instances and tags."""

    def __init__(self, store: Store, reader: Reader) -> None:
        self._store = store
        self._reader = reader

    def add(
        self,
        project_id: int,
        entries: Sequence[NewEntry],
        source_ids: Mapping[str | None, int],
        *,
        server_id: int | None,
        instance: str | None,
        levels: frozenset[str],
    ) -> Stored:
        """Keep the entries in one transaction; those whose (instance, seq) is known already are skipped.

        `source_ids` maps what an entry's `source` says to the source it belongs to; `levels` are the ones
        this project keeps. Blocks the hub for the time of the write.
        """
        store = self._store
        now = store.now()
        with store.transaction():
            instance_id = None if instance is None else self._instance(project_id, instance)
            known = self._known(instance_id, entries)
            kept, rows, duplicates, dropped = [], [], 0, 0
            last_text, last_ms = None, 0
            for entry in entries:
                seq = entry.seq if instance_id is not None else None
                if seq is not None:
                    if seq in known:
                        duplicates += 1
                        continue
                    known.add(seq)
                if entry.level not in levels:
                    dropped += 1
                    continue
                # A batch's lines mostly share one timestamp: read each text once.
                if entry.timestamp is None or entry.timestamp != last_text:
                    last_text, last_ms = entry.timestamp, to_milliseconds(entry.timestamp, now)
                source_id = source_ids[entry.source]
                kept.append((entry, source_id, last_ms))
                rows.append((source_id, server_id, last_ms, entry.level, entry.message, entry.stream,
                             bytes(entry.metadata).decode() or None,
                             msgspec.json.encode(entry.tags).decode() if entry.tags else None,
                             entry.partial * PARTIAL + entry.damaged * DAMAGED,
                             instance_id if seq is not None else None, seq))  # fmt: skip
            first_id = (store.scalar("SELECT max(id) FROM logs") or 0) + 1
            if rows:
                store.run_many(_INSERT, rows)
                self._count(kept)
                self._note_tags(project_id, kept)
        return Stored(first_id=first_id, kept=kept, duplicates=duplicates, dropped=dropped)

    def _instance(self, project_id: int, name: str) -> int:
        found = self._store.scalar("SELECT id FROM instances WHERE project_id = ? AND name = ?", project_id, name)
        if found is None:
            found = self._store.insert("INSERT INTO instances (project_id, name) VALUES (?, ?)", project_id, name)
        return int(found)

    def _known(self, instance_id: int | None, entries: Sequence[NewEntry]) -> set[int]:
        sequence = [entry.seq for entry in entries if entry.seq is not None]
        if instance_id is None or not sequence:
            return set()
        rows = self._store.all(
            "SELECT seq FROM logs WHERE instance_id = ? AND seq BETWEEN ? AND ?",
            *(instance_id, min(sequence), max(sequence)),
        )
        return {row["seq"] for row in rows}

    def _count(self, kept: Iterable[tuple[NewEntry, int, int]]) -> None:
        counts = Counter((source_id, at // 3_600_000, entry.level) for entry, source_id, at in kept)
        self._store.run_many(
            "INSERT INTO log_counts VALUES (?, ?, ?, ?) ON CONFLICT DO UPDATE SET count = count + excluded.count",
            [(*key, count) for key, count in counts.items()],
        )

    def _note_tags(self, project_id: int, kept: Iterable[tuple[NewEntry, int, int]]) -> None:
        seen = {tag for entry, _, _ in kept if entry.tags for tag in entry.tags}
        self._store.run_many(
            "INSERT INTO tags VALUES (?, ?, ?) ON CONFLICT DO UPDATE SET used_at = excluded.used_at",
            [(project_id, tag, self._store.now()) for tag in seen],
        )

    # -- reading -----------------------------------------------------------------------------------------

    def search(self, wanted: Filter) -> list[dict[str, Any]]:
        """Return the newest `limit` entries that match, oldest first, in the clients' `Log` shape.

        Levels, sources and servers match any of those given, tags likewise; `text` is found in message,
        metadata and tags without regard to case. It may look at every entry: blocks the calling greenlet only.
        """
        return self._reader.ask(lambda connection: _search(connection, wanted))

    def tags(self, project_id: int) -> list[str]:
        """Return every tag in use, sorted."""
        rows = self._store.all("SELECT tag FROM tags WHERE project_id = ? ORDER BY tag LIMIT 1000", project_id)
        return [row["tag"] for row in rows]

    def counts(self, source_ids: Sequence[int], since_s: float) -> dict[tuple[int, str], int]:
        """Return entry counts by (Unix hour, level) since `since_s`; they outlive the entries."""
        total: Counter[tuple[int, str]] = Counter()
        for source_id in source_ids:
            for row in self._store.all(
                "SELECT hour, level, count FROM log_counts WHERE source_id = ? AND hour >= ?",
                *(source_id, int(since_s // 3600)),
            ):
                total[row["hour"], row["level"]] += row["count"]
        return total


def _search(connection: sqlite3.Connection, wanted: Filter) -> list[dict[str, Any]]:
    clauses, values = _conditions(wanted)
    rows: list[sqlite3.Row] = []
    for source_id in wanted.source_ids:
        # Source by source, each along its (source, time) index: the newest of all are among these.
        rows += connection.execute(
            f"{_SELECT} WHERE source_id = ?{clauses} ORDER BY at DESC, logs.id DESC LIMIT ?",
            (source_id, *values, wanted.limit),
        )
    rows.sort(key=lambda row: (row["at"], row["id"]))
    return [log_shape(row) for row in rows[-wanted.limit :]] if wanted.limit else []


def _conditions(wanted: Filter) -> tuple[str, list[Any]]:
    clauses, values = "", list[Any]()

    def one_of(column: str, allowed: Sequence[str]) -> None:
        nonlocal clauses
        if allowed:
            clauses += f" AND {column} IN ({', '.join('?' * len(allowed))})"
            values.extend(allowed)

    one_of("level", wanted.levels)
    one_of("servers.hostname", wanted.servers)
    if wanted.from_ms is not None:
        clauses += " AND at >= ?"
        values.append(wanted.from_ms)
    if wanted.until_ms is not None:
        clauses += " AND at < ?"
        values.append(wanted.until_ms)
    if wanted.before_id is not None:
        clauses += " AND (at, logs.id) < (SELECT at, id FROM logs WHERE id = ?)"
        values.append(wanted.before_id)
    if wanted.tags:
        marks = ", ".join("?" * len(wanted.tags))
        clauses += f" AND EXISTS (SELECT 1 FROM json_each(tags) WHERE value IN ({marks}))"  # noqa: S608
        values.extend(wanted.tags)
    if wanted.text:
        pattern = wanted.text.replace("\\", "\\\\").replace("%", "\\%").replace("_", "\\_")
        clauses += r" AND (message LIKE ? ESCAPE '\' OR metadata LIKE ? ESCAPE '\' OR tags LIKE ? ESCAPE '\')"
        values.extend([f"%{pattern}%"] * 3)
    return clauses, values


def log_shape(row: sqlite3.Row) -> dict[str, Any]:
    """Return a stored entry in the clients' `Log` shape (beyond it: stream, partial, damaged)."""
    # An earlier console kept times outside of these, too; one of them must not spoil a whole answer.
    at = min(max(row["at"], EARLIEST_MS), LATEST_MS)
    shape: dict[str, Any] = {
        "id": str(row["id"]),
        "timestamp": iso(at / 1000),
        "level": row["level"],
        "message": row["message"],
        "source": row["source"],
        "server": row["server"],
        "metadata": None if row["metadata"] is None else msgspec.Raw(row["metadata"].encode()),
        "tags": [] if row["tags"] is None else msgspec.Raw(row["tags"].encode()),
        "stream": row["stream"],
    }
    if row["flags"] & PARTIAL:
        shape["partial"] = True
    if row["flags"] & DAMAGED:
        shape["damaged"] = True
    return shape
