"""Owns the database's tables: opening the file, creating and versioning its schema.

Knows nothing of what the rows mean to devices or to people.
"""

import os
import sqlite3

from orionagent.errors import OrionError

VERSION = 1

TABLES = """
CREATE TABLE users (
    id INTEGER PRIMARY KEY, email TEXT NOT NULL UNIQUE COLLATE NOCASE,
    pseudo TEXT NOT NULL UNIQUE COLLATE NOCASE,
    first_name TEXT NOT NULL, last_name TEXT NOT NULL, password TEXT, operator INTEGER NOT NULL DEFAULT 0,
    created_at REAL NOT NULL, updated_at REAL NOT NULL
);
CREATE TABLE user_tokens (
    hash BLOB PRIMARY KEY, user_id INTEGER NOT NULL REFERENCES users ON DELETE CASCADE,
    kind TEXT NOT NULL, created_at REAL NOT NULL, expires_at REAL NOT NULL
) WITHOUT ROWID;
CREATE TABLE projects (
    id INTEGER PRIMARY KEY, name TEXT NOT NULL UNIQUE, label TEXT NOT NULL,
    enabled_levels TEXT NOT NULL, created_at REAL NOT NULL
);
CREATE TABLE members (
    project_id INTEGER NOT NULL REFERENCES projects ON DELETE CASCADE,
    user_id INTEGER NOT NULL REFERENCES users ON DELETE CASCADE,
    role TEXT NOT NULL, PRIMARY KEY (project_id, user_id)
) WITHOUT ROWID;
CREATE TABLE sources (
    id INTEGER PRIMARY KEY, project_id INTEGER NOT NULL REFERENCES projects ON DELETE CASCADE,
    name TEXT NOT NULL, description TEXT NOT NULL, environment TEXT NOT NULL, created_at REAL NOT NULL,
    UNIQUE (project_id, name)
);
CREATE TABLE api_tokens (
    id INTEGER PRIMARY KEY, project_id INTEGER NOT NULL REFERENCES projects ON DELETE CASCADE,
    source_id INTEGER REFERENCES sources ON DELETE CASCADE, name TEXT NOT NULL, prefix TEXT NOT NULL,
    hash BLOB NOT NULL UNIQUE, permissions TEXT NOT NULL, last_used_at REAL, created_at REAL NOT NULL
);
CREATE TABLE servers (
    id INTEGER PRIMARY KEY, project_id INTEGER NOT NULL REFERENCES projects ON DELETE CASCADE,
    hostname TEXT NOT NULL, name TEXT, ip TEXT, created_at REAL NOT NULL, last_seen_at REAL,
    gap_s REAL NOT NULL DEFAULT 30, stopped INTEGER NOT NULL DEFAULT 0, announced TEXT, report TEXT,
    UNIQUE (project_id, hostname)
);
CREATE TABLE deployments (
    server_id INTEGER NOT NULL REFERENCES servers ON DELETE CASCADE,
    source_id INTEGER NOT NULL REFERENCES sources ON DELETE CASCADE,
    script TEXT NOT NULL, state TEXT NOT NULL, last_ping_at REAL NOT NULL,
    PRIMARY KEY (server_id, source_id, script)
) WITHOUT ROWID;
CREATE TABLE samples (
    server_id INTEGER NOT NULL REFERENCES servers ON DELETE CASCADE, at REAL NOT NULL,
    cpu REAL, memory REAL, disk REAL, rx REAL, tx REAL, PRIMARY KEY (server_id, at)
) WITHOUT ROWID;
CREATE TABLE pings (
    source_id INTEGER NOT NULL REFERENCES sources ON DELETE CASCADE, minute INTEGER NOT NULL,
    up INTEGER NOT NULL, PRIMARY KEY (source_id, minute)
) WITHOUT ROWID;
CREATE TABLE performance (
    source_id INTEGER NOT NULL REFERENCES sources ON DELETE CASCADE, at REAL NOT NULL,
    cpu REAL, memory_used REAL, memory_total REAL, uptime_seconds REAL, PRIMARY KEY (source_id, at)
) WITHOUT ROWID;
CREATE TABLE instances (
    id INTEGER PRIMARY KEY, project_id INTEGER NOT NULL REFERENCES projects ON DELETE CASCADE,
    name TEXT NOT NULL, UNIQUE (project_id, name)
);
CREATE TABLE logs (
    id INTEGER PRIMARY KEY, source_id INTEGER NOT NULL, server_id INTEGER, at INTEGER NOT NULL,
    level TEXT NOT NULL, message TEXT NOT NULL, stream TEXT, metadata TEXT, tags TEXT, flags INTEGER NOT NULL,
    instance_id INTEGER, seq INTEGER
);
CREATE INDEX logs_by_time ON logs (source_id, at);
CREATE UNIQUE INDEX logs_by_sequence ON logs (instance_id, seq) WHERE instance_id IS NOT NULL;
CREATE TABLE log_counts (
    source_id INTEGER NOT NULL REFERENCES sources ON DELETE CASCADE, hour INTEGER NOT NULL,
    level TEXT NOT NULL, count INTEGER NOT NULL, PRIMARY KEY (source_id, hour, level)
) WITHOUT ROWID;
CREATE TABLE tags (
    project_id INTEGER NOT NULL REFERENCES projects ON DELETE CASCADE, tag TEXT NOT NULL,
    used_at REAL NOT NULL, PRIMARY KEY (project_id, tag)
) WITHOUT ROWID;
CREATE TABLE commands (
    id INTEGER PRIMARY KEY, server_id INTEGER NOT NULL REFERENCES servers ON DELETE CASCADE,
    source_id INTEGER REFERENCES sources ON DELETE CASCADE, type TEXT NOT NULL, status TEXT NOT NULL,
    created_at REAL NOT NULL, acked_at REAL
);
CREATE TABLE rules (
    id INTEGER PRIMARY KEY, project_id INTEGER NOT NULL REFERENCES projects ON DELETE CASCADE,
    source_id INTEGER REFERENCES sources ON DELETE CASCADE, name TEXT NOT NULL, level TEXT NOT NULL,
    threshold INTEGER NOT NULL, window_seconds INTEGER NOT NULL, enabled INTEGER NOT NULL,
    channels TEXT NOT NULL, created_at REAL NOT NULL, fired_at REAL
);
CREATE TABLE alerts (
    id INTEGER PRIMARY KEY, project_id INTEGER NOT NULL REFERENCES projects ON DELETE CASCADE,
    rule_id INTEGER REFERENCES rules ON DELETE SET NULL, device_id TEXT, rule_name TEXT NOT NULL,
    source_name TEXT NOT NULL, server_hostname TEXT, level TEXT NOT NULL, message TEXT, status TEXT NOT NULL,
    silenced_until REAL, resolved_at REAL, resolved_by_pseudo TEXT, created_at REAL NOT NULL, details TEXT,
    UNIQUE (project_id, device_id)
);
CREATE TABLE cli_logins (
    state TEXT PRIMARY KEY, callback_port INTEGER NOT NULL, created_at REAL NOT NULL, confirmed_at REAL
) WITHOUT ROWID;
"""


def open_database(path: str) -> sqlite3.Connection:
    """Open (or create, mode 0600) the console's database in WAL mode.

    Raises:
        OrionError: the file is not a database, belongs to a newer console, or cannot be opened.
    """
    try:
        os.close(os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600))
        connection = sqlite3.connect(path, isolation_level=None, check_same_thread=False)
    except (OSError, sqlite3.Error) as error:
        raise OrionError(f"cannot open {path}: {error}; choose another folder with --data") from error
    try:
        connection.row_factory = sqlite3.Row
        connection.execute("PRAGMA journal_mode = WAL")
        # A console killed by the kernel keeps everything; only a power cut can take the last moments.
        connection.execute("PRAGMA synchronous = NORMAL")
        connection.execute("PRAGMA foreign_keys = ON")
        connection.execute("PRAGMA cache_size = -16384")
        connection.execute("PRAGMA busy_timeout = 2000")
        _create_or_check(connection, path)
    except sqlite3.Error as error:
        connection.close()
        raise OrionError(f"cannot use {path}: {error}; move it away to start afresh") from error
    except OrionError:
        connection.close()
        raise
    return connection


def open_for_reading(path: str) -> sqlite3.Connection:
    """Open a database that `open_database` holds open; it may be used in any thread, by one at a time."""
    connection = sqlite3.connect(path, isolation_level=None, check_same_thread=False)
    connection.row_factory = sqlite3.Row
    connection.execute("PRAGMA query_only = ON")
    connection.execute("PRAGMA cache_size = -16384")
    return connection


def _create_or_check(connection: sqlite3.Connection, path: str) -> None:
    found = connection.execute("PRAGMA user_version").fetchone()[0]
    if found == VERSION:
        return
    if found != 0:
        raise OrionError(f"cannot use {path}: it has schema {found}, this console knows {VERSION}; move it away")
    connection.executescript(f"BEGIN; {TABLES} PRAGMA user_version = {VERSION}; COMMIT;")
