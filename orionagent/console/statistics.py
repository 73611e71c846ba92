"""Owns the routes that count: statistics of a project and of a source, heartbeats per source.

Knows nothing of single entries or of how devices report.
"""

from datetime import UTC, datetime
from typing import Any

from werkzeug.wrappers import Response

from orionagent.console.fleet import merge_status
from orionagent.console.http import Call, answer
from orionagent.console.logbook import Filter
from orionagent.console.news import Services
from orionagent.console.store import iso
from orionagent.errors import BadRequest

HOUR_S, DAY_S = 3600, 86400
WINDOWS = {"24h": (24, HOUR_S), "7d": (7, DAY_S), "30d": (30, DAY_S)}
LEVELS = ("info", "warn", "error", "debug", "verbose", "trace", "fatal")


def _window(to: Services, call: Call) -> tuple[float, int, int]:
    """Return (start in Unix seconds, number of buckets, bucket length in seconds) of the asked window."""
    name = call.query.get("window") or "24h"
    if name not in WINDOWS:
        raise BadRequest(f"cannot use window {name!r}: it is 24h, 7d or 30d")
    count, length_s = WINDOWS[name]
    last = int(to.store.now() // length_s) * length_s
    return last - (count - 1) * length_s, count, length_s


def _counts_and_chart(
    to: Services, source_ids: list[int], start: float, count: int, length_s: int
) -> tuple[dict[str, int], list[dict[str, Any]]]:
    buckets: list[dict[str, Any]] = [
        {"bucket_start": datetime.fromtimestamp(start + number * length_s, UTC).isoformat()[:19] + "Z"}
        | dict.fromkeys(LEVELS, 0)
        for number in range(count)
    ]
    totals = dict.fromkeys((*LEVELS, "total"), 0)
    for (hour, level), amount in to.logbook.counts(source_ids, start).items():
        number = int((hour * HOUR_S - start) // length_s)
        totals["total"] += amount
        totals[level] = totals.get(level, 0) + amount
        if number < count:
            buckets[number][level] = buckets[number].get(level, 0) + amount
    return totals, buckets


def project_stats(to: Services, call: Call, project: str) -> Response:
    """Return counts, chart and uptime of a whole project."""
    found = to.accounts.project(call.user, project)
    sources = to.fleet.sources(found.id)
    ids = [row["id"] for row in sources]
    start, count, length_s = _window(to, call)
    totals, chart = _counts_and_chart(to, ids, start, count, length_s)
    return answer(
        {
            "uptime_percent": to.fleet.uptime_percent(ids, start),
            "sources_uptime": [
                {"source": row["name"], "uptime_percent": to.fleet.uptime_percent([row["id"]], start)}
                for row in sources
            ],
            "log_counts": totals,
            "chart_data": chart,
        }
    )


def source_stats(to: Services, call: Call, project: str, source: str) -> Response:
    """Return counts, chart, state and recent errors of one source; zeros for an unknown one.

    A JSON error, or a body without the arrays, would crash the clients' source page.
    """
    found = to.accounts.project(call.user, project)
    source_id = to.fleet.find_source(found.id, source)
    ids = [] if source_id is None else [source_id]
    start, count, length_s = _window(to, call)
    totals, chart = _counts_and_chart(to, ids, start, count, length_s)
    places = [place for place in to.fleet.placements(project_id=found.id) if place["source_id"] in ids]
    places.sort(key=lambda place: place["last_ping_at"])
    errors = to.logbook.search(Filter(source_ids=ids, levels=("error", "fatal"), limit=6))
    environment = next((row["environment"] for row in to.fleet.sources(found.id) if row["id"] in ids), None)
    wrong = totals["error"] + totals["fatal"]
    newest = places[-1] if places else None
    return answer(
        {
            "uptime_percent": to.fleet.uptime_percent(ids, start),
            "log_counts": totals,
            "error_rate": round(100 * wrong / totals["total"], 2) if totals["total"] else 0,
            "chart_data": chart,
            "server": newest and {"hostname": newest["hostname"], "ip": newest["ip"], "name": newest["server_name"]},
            "environment": environment,
            "recent_errors": [
                {"id": entry["id"], "message": entry["message"], "created_at": entry["timestamp"]}
                for entry in reversed(errors)
            ],
            "performance": None if source_id is None else to.fleet.performance(source_id),
            "status": merge_status([place["status"] for place in places]) if places else None,
            "last_seen_at": newest and iso(newest["last_ping_at"]),
        }
    )


def list_heartbeats(to: Services, call: Call, project: str) -> Response:
    """Return one row per source, also of those never heard of."""
    found = to.accounts.project(call.user, project)
    places = to.fleet.placements(project_id=found.id)
    rows = []
    for source in to.fleet.sources(found.id):
        own = [place for place in places if place["source_id"] == source["id"]]
        rows.append(
            {
                "source": source["name"],
                "status": merge_status([place["status"] for place in own]) if own else None,
                "last_ping_at": iso(max(place["last_ping_at"] for place in own)) if own else None,
                "interval_seconds": 30,
            }
        )
    return answer({"heartbeats": rows})
