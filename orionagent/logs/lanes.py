"""Owns what each token's lane has learnt from the backend: when to try again, how much, and in which form.

Knows nothing of requests or greenlets: errors come in, times are arguments (monotonic seconds).
"""

from collections.abc import Callable, Iterator

from orionagent.backoff import retry_delay_s
from orionagent.errors import BackendError, Retryable

MOST_ENTRIES = 5000
MOST_BYTES = 2 << 20
REFUSED_S = 60.0
DOWNGRADE_S = 600.0
DOUBTFUL_REJECTIONS = 3
"""Rejections in a row, nothing being accepted between them, after which it may not be the entries' fault."""


class Retry:
    """When the next attempt is due after failures in a row. Sole writer of its fields."""

    def __init__(self, draw: Callable[[], float]) -> None:
        self._draw = draw
        self.failures = 0
        self.due_s = 0.0
        self.asked = False
        self.error: str | None = None

    def __repr__(self) -> str:
        return f"Retry(failures={self.failures}, due_s={self.due_s:.1f})"

    @property
    def failing(self) -> bool:
        """Tell whether the last attempt failed."""
        return self.failures > 0

    def failed(self, error: BackendError, now_s: float, *, delay_s: float | None = None) -> None:
        """Note a failure; the wait is `delay_s`, else what the backend asked for, else 5, 10, 30, 60 ... s."""
        self.failures += 1
        self.error = error.message
        asked_s = error.retry_after_s if isinstance(error, Retryable) else None
        wanted_s = delay_s if delay_s is not None else asked_s
        self.asked = wanted_s is not None
        self.due_s = now_s + (retry_delay_s(self.failures, self._draw()) if wanted_s is None else wanted_s)

    def succeeded(self) -> None:
        """Note a success: the schedule starts anew."""
        self.failures, self.due_s, self.asked, self.error = 0, 0.0, False, None

    def wake(self) -> None:
        """Try at once, unless the backend named a time itself."""
        if not self.asked:
            self.due_s = 0.0

    def force(self) -> None:
        """Try at once."""
        self.due_s, self.asked = 0.0, False


class Lane:
    """The entries that go under one token. None: no token, nothing can be sent."""

    def __init__(self, token: str | None, draw: Callable[[], float]) -> None:
        self.token = token
        self.retry = Retry(draw)
        self.paused = False
        self.took_s = 0.0
        self._suspects = 0
        self._careful = 0
        self._rejections = 0
        self._most_bytes = MOST_BYTES
        self._small_until_s = 0.0
        self._single_until_s = 0.0
        self._alertless_until_s = 0.0

    def __repr__(self) -> str:
        return f"Lane(paused={self.paused}, {self.retry!r})"

    @property
    def failing(self) -> bool:
        """Tell whether nothing goes out for now."""
        return self.token is None or self.retry.failing

    def takes_batches(self, now_s: float) -> bool:
        """Tell whether NDJSON is worth trying: a refusal is forgotten after 10 minutes."""
        return now_s >= self._single_until_s

    def takes_alerts(self, now_s: float) -> bool:
        """Tell whether the alert route is worth trying."""
        return now_s >= self._alertless_until_s

    def room(self, now_s: float) -> tuple[int, int]:
        """Return the most entries and bytes of the next request."""
        if now_s >= self._small_until_s:
            self._most_bytes = MOST_BYTES
        entries = MOST_ENTRIES
        if self._suspects:
            entries = max(self._suspects // 2, 1)
        elif self._careful:
            entries = self._careful
        return entries, self._most_bytes

    def succeeded(self, entries: int, took_s: float) -> None:
        """Note that a request of so many entries was taken."""
        self.retry.succeeded()
        self.paused = False
        self.took_s = took_s
        self._rejections = 0
        self._suspects = max(self._suspects - entries, 0)
        if self._careful:
            self._careful = 0 if self._careful >= MOST_ENTRIES else self._careful * 2

    def refused(self, error: BackendError, now_s: float) -> None:
        """Note a 401 or 403: everything waits until the token is put right."""
        self.paused = True
        self.retry.failed(error, now_s, delay_s=REFUSED_S)

    def too_large(self, entries: int, size: int, now_s: float) -> bool:
        """Note a 413; tell whether smaller requests may help (else it is this one entry)."""
        self._small_until_s = now_s + DOWNGRADE_S
        if entries == 1:
            return False
        self._most_bytes = max(min(self._most_bytes, size) // 2, 1)
        return True

    def spoilt(self, entries: int) -> bool:
        """Note that a request was refused for its content; tell whether halves may help."""
        if entries == 1:
            return False
        self._suspects = entries
        return True

    def rejected(self, error: BackendError, now_s: float) -> None:
        """Note that one entry was set aside. A backend that refuses every single one is given time."""
        self._suspects = 0
        self._careful = self._careful or 1
        self._rejections += 1
        if self._rejections >= DOUBTFUL_REJECTIONS:
            self.retry.failed(error, now_s)

    def only_singles(self, now_s: float) -> None:
        """Note that the backend knows no NDJSON."""
        self._single_until_s = now_s + DOWNGRADE_S

    def no_alerts(self, now_s: float) -> None:
        """Note that the backend knows no alerts."""
        self._alertless_until_s = now_s + DOWNGRADE_S

    def forget(self) -> None:
        """Start anew, as after a reload: the backend may be another one."""
        self.retry.force()
        self.paused = False
        self._small_until_s = self._single_until_s = self._alertless_until_s = 0.0
        self._suspects = self._careful = self._rejections = 0


class Lanes:
    """All lanes by their token, and which source goes under which. Sole writer of both maps.

    `token_for` returns a source's own token, None where the server's is to be used. It is asked once: again only
    after `ask_again` or `start_anew`.
    """

    def __init__(
        self, server_token: str | None, token_for: Callable[[str], str | None], draw: Callable[[], float]
    ) -> None:
        self.server_token = server_token
        self._token_for = token_for
        self._draw = draw
        self._by_token: dict[str | None, Lane] = {}
        self._by_source: dict[str, Lane] = {}

    def __iter__(self) -> Iterator[Lane]:
        return iter(self._by_token.values())

    def of(self, source: str) -> Lane:
        """Return the lane under which a source's entries go."""
        lane = self._by_source.get(source)
        if lane is None:
            token = self._token_for(source) or self.server_token
            lane = self._by_token.get(token)
            if lane is None:
                lane = self._by_token[token] = Lane(token, self._draw)
            self._by_source[source] = lane
        return lane

    def in_use(self) -> list[Lane]:
        """Return the lanes that sources go under."""
        return list(self._by_source.values())

    def ask_again(self) -> None:
        """Ask for every source's token anew: a file may hold another one by now."""
        self._by_source.clear()

    def start_anew(self, server_token: str | None) -> None:
        """Take another token for the server, ask for every source's, and forget what was learnt."""
        self.server_token = server_token
        self._by_source.clear()
        for lane in self:
            lane.forget()
