import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from calib.calling.inphase import AHEAD, BACK, RIDGE, correct_phasing
from calib.offline.simulation.chemistry import phasing_weights
from calib.phasing import MAX_PHASING, MIN_CYCLES, NeighbourLight, Phasing, estimate_phasing, neighbour_light, strands

NONE = Phasing(0.0, 0.0)
RATES = st.floats(0, MAX_PHASING)
PHASINGS = st.builds(Phasing, behind=RATES, ahead=RATES)


def one_hot(bases):
    return np.eye(4)[bases]


def mixed_reads(number, cycles, phasing, *, noise=0.0, seed=1):
    """Bases (cycles, n), and the light (cycles, n, 4) of clusters whose strands slip, of which more lie ahead."""
    rng = np.random.default_rng(seed)
    bases = rng.integers(0, 4, (cycles + 10, number))
    light = np.tensordot(strands(cycles=cycles + 10, phasing=phasing), one_hot(bases), axes=1)
    light += rng.normal(0, noise, light.shape)
    return bases[:cycles], light[:cycles]


@settings(deadline=None)
@given(phasing=PHASINGS, cycles=st.integers(1, 12))
def test_rows_are_convolution_powers_of_one_step(phasing, cycles):
    mixed = strands(cycles=cycles, phasing=phasing)
    shares = np.array([1.0])
    for cycle in range(cycles):
        shares = np.convolve(shares, [phasing.behind, 1 - phasing.behind - phasing.ahead, phasing.ahead])
        assert shares.sum() == pytest.approx(1)
        whole = np.pad(shares[1 : cycles + 1], (0, max(0, cycles + 1 - len(shares))))
        assert mixed[cycle] == pytest.approx(whole, abs=1e-12)
    assert mixed.sum(axis=1).max() <= 1 + 1e-12
    own = (1 - phasing.behind - phasing.ahead) ** np.arange(1, cycles + 1)
    if phasing.ahead == 0:
        assert np.diag(mixed) == pytest.approx(own)


@settings(deadline=None)
@given(phasing=PHASINGS)
def test_strands_agree_with_the_simulated_chemistry(phasing):
    mixed = strands(cycles=9, phasing=phasing)
    for cycle in range(1, 10):
        weights = phasing_weights(cycle=cycle, cycles=9, phasing=phasing.behind, prephasing=phasing.ahead)
        assert mixed[cycle - 1] == pytest.approx(weights, abs=1e-12)


def test_neighbours_light_by_hand():
    before, own, after = np.array([[0, 1, 2], [2, 0, 3], [1, 1, 0], [0, 2, 0], [3, 2, 1]]).T
    light = np.array(
        [
            [0.4, 1.0, 0.3, 0.1],  # fourth base T: 0.9, 0.3, 0.2
            [0.8, 0.2, 0.3, 0.5],  # fourth base C: 0.6, 0.1, 0.3
            [9.0, 9.0, 9.0, 9.0],  # the same base twice says nothing
            [9.0, 9.0, 9.0, 9.0],  # nor do neighbours that are alike
            [np.nan, 1.0, 1.0, 1.0],
        ]
    )
    found = neighbour_light(light, before=before, own=own, after=after)
    assert (found.own, found.behind, found.ahead) == pytest.approx((0.75, 0.2, 0.25))


@pytest.mark.parametrize("light", [np.full((3, 4), np.nan), np.zeros((3, 4)), -np.eye(4)[[1, 1, 1]]])
def test_clusters_without_light_say_nothing(light):
    bases = {"before": np.zeros(3, int), "own": np.ones(3, int), "after": np.full(3, 2)}
    assert neighbour_light(light, **bases) is None


def test_no_usable_cluster_says_nothing():
    same = np.array([2, 2])
    assert neighbour_light(np.ones((2, 4)), before=same, own=same, after=same) is None
    nobody = np.zeros(0, int)
    assert neighbour_light(np.zeros((0, 4)), before=nobody, own=nobody, after=nobody) is None


def seen_in(bases, light):
    """What each cycle that has one before and one after it shows, by 1-based cycle."""
    return {
        index + 1: neighbour_light(light[index], before=bases[index - 1], own=bases[index], after=bases[index + 1])
        for index in range(1, len(bases) - 1)
    }


@pytest.mark.parametrize(("behind", "ahead"), [(0, 0), (0.0015, 0.001), (0.005, 0.003), (0.012, 0), (0.01, 0.02)])
def test_known_rates_are_recovered_from_noisy_light(behind, ahead):
    bases, light = mixed_reads(1500, 60, Phasing(behind, ahead), noise=0.15)
    # Others' light, the same on all bases, is no phasing.
    found = estimate_phasing(seen_in(bases, light + 0.2))
    assert found.behind == pytest.approx(behind, rel=0.03, abs=1e-4)
    assert found.ahead == pytest.approx(ahead, rel=0.03, abs=1e-4)


def test_rates_are_recovered_when_some_cycles_are_missing():
    bases, light = mixed_reads(1500, 60, Phasing(0.005, 0.003), noise=0.15)
    seen = seen_in(bases, light)
    found = estimate_phasing({cycle: seen[cycle] for cycle in seen if cycle % 3 and not 20 < cycle < 40})
    assert (found.behind, found.ahead) == pytest.approx((0.005, 0.003), rel=0.05)


@settings(deadline=None)
@given(phasing=PHASINGS, unit=st.floats(0.01, 100), start=st.integers(1, 5))
def test_light_without_noise_gives_the_rates_back_in_any_unit(phasing, unit, start):
    mixed = strands(cycles=30, phasing=phasing)
    seen = {
        cycle: NeighbourLight(*(unit * mixed[cycle - 1, position] for position in (cycle - 1, cycle - 2, cycle)))
        for cycle in range(max(start, 2), 25)
    }
    found = estimate_phasing(seen)
    assert found.behind == pytest.approx(phasing.behind, abs=1e-4)
    assert found.ahead == pytest.approx(phasing.ahead, abs=1e-4)


@pytest.mark.parametrize("dark", [2, 30, 59])
def test_a_cycle_with_next_to_no_light_bends_nothing(dark):
    bases, light = mixed_reads(1500, 60, Phasing(0.005, 0.003), noise=0.15)
    seen = seen_in(bases, light)
    assert len(seen) == 58
    found = estimate_phasing(seen | {dark: NeighbourLight(own=1e-3, behind=5e-3, ahead=5e-3)})
    assert (found.behind, found.ahead) == pytest.approx((0.005, 0.003), rel=0.2)


def test_short_reads_tell_nothing():
    bases, light = mixed_reads(500, 60, Phasing(0.01, 0.01))
    seen = seen_in(bases, light)
    few = {cycle: seen[cycle] for cycle in list(seen)[: MIN_CYCLES - 1]}
    assert estimate_phasing(few) == estimate_phasing({}) == NONE


@settings(deadline=None)
@given(behind=st.floats(-5, 5), ahead=st.floats(-5, 5))
def test_rates_are_possible_whatever_is_seen(behind, ahead):
    found = estimate_phasing({cycle: NeighbourLight(1.0, behind, ahead) for cycle in range(2, 20)})
    assert 0 <= found.behind <= MAX_PHASING
    assert 0 <= found.ahead <= MAX_PHASING


NOTHING_BEFORE = np.zeros((0, 3, 4))
LIGHT = np.array([[1.0, 0.1, 0, -0.1], [0.2, 0.3, 0.9, 0], [np.nan] * 4])
LATER = [one_hot([1, 2, 3]), one_hot([3, 3, 3])]


@pytest.mark.parametrize("later", [LATER, LATER[:1], [None, LATER[1]], []])
def test_without_phasing_shares_come_back_up_to_the_pull_of_the_ridge(later):
    earlier = one_hot(np.array([[0, 1, 2], [3, 2, 1]]))
    found = correct_phasing(LIGHT, later, earlier, cycle=3, phasing=NONE)
    assert found.shares[:2] == pytest.approx((LIGHT[:2] + RIDGE / 4) / (1 + RIDGE))
    assert np.isnan(found.shares[2]).all()
    assert found.variance_factor == pytest.approx(1 / (1 + RIDGE) ** 2)


def test_correction_is_the_ridge_solution():
    phasing = Phasing(0.02, 0.03)
    earlier = np.random.default_rng(3).dirichlet(np.ones(4), (4, 2))
    found = correct_phasing(LIGHT[:2], [light[:2] for light in LATER], earlier, cycle=5, phasing=phasing)
    shown = strands(cycles=5 + 2 + BACK, phasing=phasing)
    rows = np.stack([shown[index] / shown[index, index] for index in (4, 5, 6)])
    rest = rows.sum(axis=1) - rows[:, :7].sum(axis=1)
    light = np.stack([LIGHT[:2], *(light[:2] for light in LATER)])
    left = light - np.tensordot(rows[:, :4], earlier, axes=1) - rest[:, None, None] / 4
    mixing = rows[:, 4:7]
    normal = mixing.T @ mixing + RIDGE * np.eye(3)
    solved = np.linalg.solve(normal, np.tensordot(mixing.T, left, axes=1).reshape(3, -1) + RIDGE / 4)
    assert found.shares == pytest.approx(solved[0].reshape(2, 4))


@pytest.mark.parametrize("cycle", [1, 2, 30, 100])
def test_mixed_shares_come_back_to_their_base(cycle):
    bases, light = mixed_reads(300, 104, Phasing(0.005, 0.003))
    known = one_hot(bases[max(0, cycle - 1 - BACK) : cycle - 1])
    # Light is told in units of the strands in step.
    light /= np.diag(strands(cycles=104, phasing=Phasing(0.005, 0.003)))[:, None, None]
    found = correct_phasing(
        light[cycle - 1], light[cycle : cycle + AHEAD], known, cycle=cycle, phasing=Phasing(0.005, 0.003)
    )
    aim = (one_hot(bases[cycle - 1]) + RIDGE / 4) / (1 + RIDGE)
    before, after = np.abs(light[cycle - 1] - aim).mean(), np.abs(found.shares - aim).mean()
    assert after < 0.5 * before if cycle > 2 else after < 0.02
    assert (found.shares.argmax(axis=1) == bases[cycle - 1]).all()


def wrong_calls(bases, light, *, phasing, cycles, ahead):
    """Share of wrong calls where every call is made with the calls before it, as they were made."""
    called = np.zeros((0, bases.shape[1]), int)
    scale = np.diag(strands(cycles=len(light), phasing=phasing))
    light = light / scale[:, None, None]
    for index in range(cycles):
        later = list(light[index + 1 : index + 1 + ahead])
        found = correct_phasing(light[index], later, one_hot(called[-BACK:]), cycle=index + 1, phasing=phasing)
        called = np.vstack([called, found.shares.argmax(axis=1)])
    return (called != bases[:cycles]).mean()


def test_correction_takes_a_third_of_the_errors_away_over_100_cycles():
    slips = Phasing(0.005, 0.003)
    bases, light = mixed_reads(600, 103, slips, noise=0.17)
    uncorrected = wrong_calls(bases, light, phasing=NONE, cycles=100, ahead=AHEAD)
    corrected = wrong_calls(bases, light, phasing=slips, cycles=100, ahead=AHEAD)
    assert 0.01 < uncorrected < 0.2
    assert corrected < uncorrected * 2 / 3
    assert wrong_calls(bases, light, phasing=slips, cycles=100, ahead=0) < uncorrected


def test_a_missing_later_cycle_drops_out():
    phasing = Phasing(0.01, 0.01)
    bases, light = mixed_reads(200, 30, phasing)
    known = one_hot(bases[: 20 - 1][-BACK:])
    both, first, second, alone = (
        correct_phasing(light[19], later, known, cycle=20, phasing=phasing)
        for later in ([light[20], light[21]], [light[20], None], [None, light[21]], [None, None])
    )
    for found in (both, first, second, alone):
        assert (found.shares.argmax(axis=1) == bases[19]).mean() > 0.97
    assert np.abs(first.shares - both.shares).mean() < np.abs(alone.shares - both.shares).mean()
    # A missing cycle is not an empty one.
    dark = correct_phasing(light[19], [light[20] * 0, light[21]], known, cycle=20, phasing=phasing)
    assert np.abs(dark.shares - second.shares).max() > 0.05


def test_a_cluster_that_a_later_cycle_does_not_show_is_still_corrected():
    phasing = Phasing(0.01, 0.01)
    bases, light = mixed_reads(200, 30, phasing)
    light[20, :50] = np.nan
    found = correct_phasing(light[19], list(light[20:22]), one_hot(bases[19 - BACK : 19]), cycle=20, phasing=phasing)
    assert np.isfinite(found.shares).all()
    whole = correct_phasing(
        light[19, 50:], list(light[20:22, 50:]), one_hot(bases[19 - BACK : 19, 50:]), cycle=20, phasing=phasing
    )
    assert found.shares[50:] == pytest.approx(whole.shares)


def test_the_last_cycle_has_only_what_is_before_it():
    phasing = Phasing(0.01, 0.0)
    bases, light = mixed_reads(200, 30, phasing)
    # Nothing runs ahead, so that calls before explain all.
    own = np.diag(strands(cycles=30, phasing=phasing))[29]
    found = correct_phasing(light[29] / own, [], one_hot(bases[:29][-BACK:]), cycle=30, phasing=phasing)
    assert found.shares == pytest.approx((one_hot(bases[29]) + RIDGE / 4) / (1 + RIDGE), abs=1e-3)


def test_a_tile_without_clusters_is_corrected_to_nothing():
    found = correct_phasing(
        np.zeros((0, 4)), [np.zeros((0, 4)), None], np.zeros((2, 0, 4)), cycle=3, phasing=Phasing(0.01, 0.01)
    )
    assert found.shares.shape == (0, 4)
