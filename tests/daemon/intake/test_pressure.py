import pytest

from daemon.config import MemoryConfig, SpoolConfig
from daemon.intake.cycletime import CycleTime
from daemon.intake.pressure import Backpressure, Forecast

MB = 2**20
MEMORY = MemoryConfig(spill_above=10 * MB, refuse_above=20 * MB)
SPOOL = SpoolConfig(limit=100 * MB, hold_above=60 * MB, release_below=20 * MB)


def changes(pressure, loads):
    """What is asked for at each of (memory, spool) megabytes; every request is taken."""
    asked = []
    for memory, spool in loads:
        change = pressure.change(waiting_bytes=memory * MB, spooled_bytes=spool * MB)
        asked.append(change)
        if change is not None:
            pressure.holding = change
    return asked


def test_controller_is_released_when_a_run_is_taken_up():
    assert changes(Backpressure(MEMORY, SPOOL), [(0, 0), (0, 0)]) == [False, None]
    assert changes(Backpressure(MEMORY, SPOOL), [(10, 40), (10, 40)]) == [False, None]
    assert changes(Backpressure(MEMORY, SPOOL), [(10, 61), (10, 40)]) == [True, None]


def test_hold_is_asked_for_above_the_high_mark_and_ended_below_the_low_one():
    loads = [(0, 0), (10, 60), (10, 61), (10, 40), (10, 21), (10, 20), (10, 30)]
    assert changes(Backpressure(MEMORY, SPOOL), loads) == [False, None, True, None, None, False, None]


def test_memory_that_the_spool_does_not_relieve_holds_too():
    loads = [(0, 0), (15, 0), (16, 0), (11, 0), (10, 0)]
    assert changes(Backpressure(MEMORY, SPOOL), loads) == [False, None, True, None, False]


def test_amount_that_grows_is_forecast():
    forecast = Forecast()
    assert forecast.full_in_s(100) is None
    for second in range(11):
        forecast.add(3.0 * second, float(second))
    assert forecast.full_in_s(100) == pytest.approx((100 - 30) / 3, abs=0.1)
    assert forecast.full_in_s(20) == 0


def test_amount_that_does_not_grow_will_not_be_full():
    forecast = Forecast()
    for second in range(11):
        forecast.add(50.0 - second, float(second))
    assert forecast.full_in_s(100) is None


def test_growth_long_ago_is_forgotten():
    forecast = Forecast()
    for second in range(1000):
        forecast.add(min(second, 100) * 10.0, float(second))
    assert forecast.full_in_s(2000) is None


def test_missing_frame_is_waited_for_as_long_as_two_cycles_take():
    imaging = CycleTime()
    imaging.finished(1, 100.0)
    assert (imaging.cycle_s, imaging.missing_after_s) == (None, 30.0)
    for cycle in range(2, 7):
        imaging.finished(cycle, 100.0 + 40.0 * (cycle - 1))
    assert (imaging.cycle_s, imaging.missing_after_s) == (40.0, 80.0)


def test_one_long_pause_does_not_change_the_time_of_a_cycle():
    imaging, now_s = CycleTime(), 0.0
    for cycle in range(1, 9):
        now_s += 3600.0 if cycle == 5 else 20.0
        imaging.finished(cycle, now_s)
    assert imaging.cycle_s == 20.0


@pytest.mark.parametrize(("cycle_s", "waited_s"), [(0.5, 10.0), (1000.0, 600.0)])
def test_the_wait_is_bounded_at_both_ends(cycle_s, waited_s):
    imaging = CycleTime()
    for cycle in range(1, 4):
        imaging.finished(cycle, cycle * cycle_s)
    assert imaging.missing_after_s == waited_s


def test_cycles_that_were_passed_at_once_share_the_time():
    imaging = CycleTime()
    imaging.finished(1, 0.0)
    imaging.finished(5, 80.0)
    assert imaging.cycle_s == 20.0
