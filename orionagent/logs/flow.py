"""Owns the flow-control policy: who may be made to wait for room in the buffer, and for how long.

Knows nothing of greenlets or clocks: times are arguments, in monotonic seconds.

    healthy   the last request took at most 1 s and the one under way is not older: wait as long as it takes
    slow      anything else that still succeeds: a source waits less than 5 s in any minute
    failing   the last request failed, or none can be sent: nobody waits, the oldest entries go
"""

from collections import deque
from typing import Literal, TypeAlias

Pace: TypeAlias = Literal["healthy", "slow", "failing"]

HEALTHY_S = 1.0
BUDGET_S = 4.5  # of the 5 s that are promised: a busy machine adds its part
WINDOW_S = 60.0


class Budget:
    """How long each source was made to wait within the last minute. Sole writer of that ledger.

    Waits count whatever the pace was: what matters is how long the application stood still.
    """

    def __init__(self, budget_s: float = BUDGET_S, window_s: float = WINDOW_S) -> None:
        self._budget_s = budget_s
        self._window_s = window_s
        self._waits: dict[str, deque[tuple[float, float]]] = {}

    def __repr__(self) -> str:
        return f"Budget({sum(map(len, self._waits.values()))} waits)"

    def spend(self, source: str, started_s: float, ended_s: float) -> None:
        """Note a wait."""
        if ended_s > started_s:
            waits = self._waits.setdefault(source, deque())
            self._forget(waits, ended_s)
            waits.append((started_s, ended_s))

    def left_s(self, source: str, now_s: float, waiting_since_s: float) -> float:
        """Return how much longer a source that waits since then may wait; never negative."""
        waits = self._waits.get(source)
        spent = now_s - waiting_since_s
        if waits is not None:
            self._forget(waits, now_s)
            if not waits:
                del self._waits[source]
            spent += sum(ended - started for started, ended in waits)
        return max(self._budget_s - spent, 0.0)

    def _forget(self, waits: deque[tuple[float, float]], now_s: float) -> None:
        while waits and waits[0][1] <= now_s - self._window_s:
            waits.popleft()


def pace(*, failing: bool, last_took_s: float, under_way_s: float) -> Pace:
    """Return the pace of a lane whose last request took so long and whose current one is so old (0: none)."""
    if failing:
        return "failing"
    return "healthy" if last_took_s <= HEALTHY_S and under_way_s <= HEALTHY_S else "slow"
