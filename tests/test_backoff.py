"""Delays grow as the contract says and never beyond their caps."""

import pytest

from orionagent.backoff import restart_delay_ms, retry_delay_s


@pytest.mark.parametrize(
    ("crashes", "expected"), [(1, 1000), (2, 2000), (3, 4000), (6, 32_000), (7, 60_000), (500, 60_000)]
)
def test_restart_delay_doubles_up_to_a_minute(crashes: int, expected: float) -> None:
    assert restart_delay_ms(1000, crashes, draw=0.0) == expected


def test_restart_delay_of_base_zero_is_zero() -> None:
    assert restart_delay_ms(0, 9, draw=0.5) == 0


@pytest.mark.parametrize(("failures", "expected"), [(1, 5), (2, 10), (3, 30), (4, 60), (5, 60), (99, 60)])
def test_retry_delay_follows_the_schedule(failures: int, expected: float) -> None:
    assert retry_delay_s(failures, draw=0.0) == expected


def test_jitter_only_shortens_and_by_at_most_a_tenth() -> None:
    assert restart_delay_ms(1000, 1, draw=0.999) == pytest.approx(900, abs=1)
    assert retry_delay_s(1, draw=0.999) == pytest.approx(4.5, abs=0.01)
