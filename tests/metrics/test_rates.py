"""The arithmetic between two readings."""

from hypothesis import given
from hypothesis import strategies as st

from orionagent.metrics.rates import CpuTimes, Traffic, cpu_shares, traffic_rates, usage_share

seconds = st.floats(0, 1e9, allow_nan=False)
times = st.builds(CpuTimes, seconds, seconds, seconds)


def test_stolen_time_is_apart_from_busy_time() -> None:
    assert cpu_shares(CpuTimes(10, 10, 0), CpuTimes(30, 60, 30)) == (20.0, 30.0)


def test_a_counter_that_went_backwards_makes_the_shares_unknown() -> None:
    assert cpu_shares(CpuTimes(10, 10, 5), CpuTimes(20, 20, 4)) is None


def test_no_time_between_readings_makes_the_shares_unknown() -> None:
    assert cpu_shares(CpuTimes(10, 10, 5), CpuTimes(10, 10, 5)) is None


@given(times, times)
def test_shares_stay_within_a_hundred(earlier: CpuTimes, later: CpuTimes) -> None:
    shares = cpu_shares(earlier, later)
    assert shares is None or (min(shares) >= 0 and sum(shares) <= 100.0001)


def test_a_containers_share_is_that_of_its_cpus() -> None:
    assert usage_share(10.0, 15.0, elapsed_s=10, cpus=2) == 25.0
    assert usage_share(10.0, 40.0, elapsed_s=10, cpus=2) == 100.0
    assert usage_share(10.0, 9.0, elapsed_s=10, cpus=2) is None
    assert usage_share(10.0, 11.0, elapsed_s=0, cpus=2) is None


def test_traffic_is_summed_over_what_both_readings_have() -> None:
    earlier = {"eth0": Traffic(100, 10), "gone": Traffic(5, 5)}
    later = {"eth0": Traffic(300, 30), "new": Traffic(9999, 9999)}
    assert traffic_rates(earlier, later, 2.0) == (100.0, 10.0)


def test_traffic_of_a_reset_interface_is_unknown_rather_than_too_small() -> None:
    earlier = {"eth0": Traffic(100, 10), "eth1": Traffic(100, 10)}
    assert traffic_rates(earlier, {"eth0": Traffic(5, 20), "eth1": Traffic(200, 20)}, 2.0) is None


def test_traffic_without_a_common_interface_is_unknown() -> None:
    assert traffic_rates({}, {"eth0": Traffic(1, 1)}, 2.0) is None
    assert traffic_rates({"eth0": Traffic(1, 1)}, {"eth0": Traffic(1, 1)}, 0.0) is None
