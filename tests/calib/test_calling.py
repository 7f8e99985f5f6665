import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from calib.calling.callcycle import base_probabilities, call_cycle
from calib.calling.scores import (
    CYCLES,
    MAX_MARGIN,
    MIN_PERCENT,
    NO_CALL,
    UNKNOWN,
    binned,
    chastity,
    features,
    passes_filter,
    predictor,
    scores,
)
from calib.calling.signals import (
    EVIDENCE_FLOOR,
    FIT_LOSS,
    MAX_SHARE,
    MIN_USUAL_EVIDENCE,
    MIN_VISIBLE,
    MISFIT,
    NETWORK_WEIGHT,
    Signals,
    fitted_signals,
    log_evidence,
    network_signals,
)
from calib.jointfit.colourprior import SPREAD
from calib.jointfit.fitcycle import FittedCycle
from calib.jointfit.scene import Scene
from calib.offline.quality.qualitytable import HIGHEST_SCORE, KnownCalls, fit_quality, fit_table
from calib.phasing import Phasing, strands
from engines.bundles.bundle import QualityTable

NONE = Phasing(0.0, 0.0)
TABLE = QualityTable(weights=(1, 0, 0, 0, 0, 0), edges=(0.3, 0.8, 1.2), scores=(2, 15, 30, 40), binned=(2, 12, 24, 40))
"""By the distance between the two likeliest bases alone, in tens of natural logarithms."""
CROSSTALK = np.array([[1, 0.5, 0.02, 0.01], [0.3, 1, 0.02, 0.02], [0.01, 0.03, 1, 0.4], [0, 0.01, 0.15, 1]])


def one_hot(bases):
    return np.eye(4, dtype=np.float32)[bases]


def reading(shares, *, spread=0.1, texture=0.0, centres=None, crowding=0.0):
    shares = np.asarray(shares, np.float32)
    return Signals(
        shares=shares,
        spread=np.full_like(shares, spread),
        texture=np.full(len(shares), texture, np.float32),
        centres=np.zeros_like(shares) if centres is None else np.asarray(centres, np.float32),
        crowding=np.broadcast_to(np.float32(crowding), len(shares)),
    )


def scene_of(brightness, *, sigma=1.2, noise=0.05):
    number = len(brightness)
    return Scene(
        positions=np.stack([np.arange(number) * 20.0, np.zeros(number)], axis=1),
        brightness=np.asarray(brightness, float),
        channel_shift_px=np.zeros((4, 2)),
        sigma_px=np.full(4, sigma),
        noise=np.full(4, noise),
        crosstalk=CROSSTALK,
    )


# Readings.


def test_a_network_reading_is_its_evidence_and_nan_where_there_is_none():
    centres = np.array([[0.8, 0, 0.1, 0], [0, 0, 0, 0], [0, 1e-9, 0, 0], [0, 0, 0.5, 0], [0, 0.1, 0, 0.4]], np.float32)
    read = network_signals(centres)
    assert np.isnan(read.shares).all(axis=1).tolist() == [False, True, False, False, False]
    # In units of what the cycle usually shows.
    assert read.shares[[0, 2, 3, 4]] == pytest.approx(centres[[0, 2, 3, 4]] / 0.4)
    np.testing.assert_array_equal(read.centres, centres)
    assert not read.spread.any()
    assert not read.texture.any()
    assert not read.crowding.any()


def test_a_dim_cycle_shows_the_network_the_same_shares_as_a_bright_one():
    centres = np.random.default_rng(11).dirichlet(np.ones(4), 50).astype(np.float32)
    bright = network_signals(centres).shares
    assert np.median(bright.max(axis=1)) == pytest.approx(1)
    assert network_signals(centres / 8).shares == pytest.approx(bright)


def test_a_cycle_without_evidence_is_not_scaled_up():
    centres = 1e-3 * np.random.default_rng(11).dirichlet(np.ones(4), 50).astype(np.float32)
    assert network_signals(centres).shares == pytest.approx(centres / MIN_USUAL_EVIDENCE)
    assert np.isnan(network_signals(centres * 0).shares).all()
    assert network_signals(centres[:0]).shares.shape == (0, 4)


def test_a_reading_is_kept_in_half_precision():
    rng = np.random.default_rng(12)
    shares = rng.normal(0.5, 0.5, (60, 4))
    shares[::7] = np.nan
    shares[1] = -MAX_SHARE, MAX_SHARE, 0, 1e-4
    read = Signals(
        shares=shares.astype(np.float32),
        spread=rng.uniform(0, 1, (60, 4)).astype(np.float32),
        texture=rng.uniform(0, 1, 60).astype(np.float32),
        centres=rng.uniform(0, 1, (60, 4)).astype(np.float32),
        crowding=rng.uniform(0, MAX_SHARE, 60).astype(np.float32),
    )
    kept = read.packed()
    assert kept.dtype == np.float16
    assert kept.shape == (60, 14)
    back = Signals.unpacked(kept)
    for name, before in vars(read).items():
        found = getattr(back, name)
        assert found.dtype == np.float32
        assert found == pytest.approx(before, rel=2**-11, abs=1e-7, nan_ok=True), name
    assert np.isnan(back.shares).all(axis=1).tolist() == [index % 7 == 0 for index in range(60)]
    np.testing.assert_array_equal(back.packed(), kept)
    assert Signals.unpacked(reading(np.zeros((0, 4))).packed()).crowding.shape == (0,)


def fitted(light, left_over, visible=1.0):
    light = np.asarray(light, np.float32)
    shown = np.broadcast_to(np.asarray(visible, np.float32), len(light))
    return FittedCycle(light, np.broadcast_to(np.float32(left_over), light.shape), shown)


def test_shares_of_fitted_light_are_free_of_crosstalk_and_in_units_of_brightness():
    brightness = np.array([0.5, 1.0, 2.0, 1.5, 0.8])
    bases = np.array([0, 1, 2, 3, 1])
    # All have lost a fifth of their light since the template.
    light = 0.8 * brightness[:, None] * one_hot(bases) @ CROSSTALK.T
    called, visible = np.array([0, 2, 3, 4]), np.array([1, 1, 1, MIN_VISIBLE / 2, 0.25])
    known = {"called": called, "crowding": np.array([0.5, 0, 1e4, 2])}
    read = fitted_signals(fitted(light, 0.04, visible), scene_of(brightness), centres=None, **known)
    assert read.shares[[0, 1, 3]] == pytest.approx(one_hot(bases[[0, 2, 4]]), abs=1e-5)
    assert np.isnan(read.shares[2]).all()
    # A cluster of which a quarter shows is half as well known, and four times as crowded.
    error = 0.04 / (0.8 * brightness[called] * np.sqrt(visible[called]))
    assert read.spread == pytest.approx(error[:, None].repeat(4, axis=1), rel=1e-4)
    assert not read.texture.any()
    assert not read.centres.any()
    assert read.crowding.tolist() == [0.5, 0, MAX_SHARE, 8]


@pytest.mark.parametrize(("times", "texture"), [(0.5, 0), (1, 0), (2, 0.75), (1000, 1)])
def test_texture_is_what_is_left_over_beyond_noise_and_misfit(times, texture):
    white = np.hypot(0.05 / (np.sqrt(np.pi) * 1.2), MISFIT)
    light = one_hot([0, 1]) @ CROSSTALK.T
    centres = one_hot([0, 1])
    everything = {"called": np.arange(2), "crowding": np.zeros(2)}
    read = fitted_signals(fitted(light, times * white), scene_of([1, 1]), centres=centres, **everything)
    assert read.texture == pytest.approx(texture, abs=1e-4)
    np.testing.assert_array_equal(read.centres, centres)
    alone = fitted_signals(fitted(light, times * white), scene_of([1, 1]), centres=None, **everything)
    assert not alone.texture.any()


def test_clusters_without_brightness_have_bounded_shares():
    def read_of(light, left_over):
        everyone = {
            "called": np.arange(len(light)),
            "crowding": np.zeros(len(light)),
        }
        return fitted_signals(fitted(light, left_over), scene_of(np.zeros(len(light))), centres=None, **everyone)

    read = read_of([[0.5, 0, 0, 0], [1, 0, 0, 0]], 3.0)
    assert np.abs(read.shares).max() <= MAX_SHARE
    assert read.spread.max() <= MAX_SHARE
    assert read_of(np.zeros((0, 4)), 1.0).shares.shape == (0, 4)


# Evidence.


def test_over_noise_alone_the_network_is_not_heard():
    shares = np.array([[0.9, 0.3, 0, 0.1]])
    silent, loud = (reading(shares, texture=0, centres=centres) for centres in (shares * 0, one_hot([3])))
    np.testing.assert_array_equal(log_evidence(silent, shares), log_evidence(loud, shares))
    # The log-likelihood of a Gaussian, up to what all bases share.
    squared = ((shares[0] - np.eye(4)) ** 2).sum(axis=1) / (2 * (SPREAD**2 + 0.1**2))
    evidence = log_evidence(silent, shares)[0]
    assert evidence - evidence[0] == pytest.approx(squared[0] - squared, rel=1e-5)


def test_amid_nothing_but_structure_the_network_decides():
    shares = np.array([[1.2, 0, 0, 0]])
    heard = log_evidence(reading(shares, texture=1, centres=one_hot([3])), shares)
    assert heard.argmax() == 3
    fit = (shares - 0.5) / (SPREAD**2 + 0.1**2)
    network = np.log(one_hot([3]) + EVIDENCE_FLOOR)
    assert heard == pytest.approx((1 - FIT_LOSS) * fit + NETWORK_WEIGHT * network, rel=1e-5)


def test_evidence_shrinks_with_noise_and_with_what_the_correction_made_louder():
    shares = np.array([[1.0, 0, 0, 0]])
    plain = log_evidence(reading(shares, spread=0), shares)
    assert log_evidence(reading(shares, spread=SPREAD), shares) == pytest.approx(plain / 2, rel=1e-5)
    assert log_evidence(reading(shares, spread=0), shares, 2.0) == pytest.approx(plain / 2)


def test_there_is_no_evidence_of_a_cluster_that_is_outside():
    shares = np.array([[np.nan] * 4, [1, 0, 0, 0]])
    evidence = log_evidence(reading(shares, texture=0.5), shares)
    assert np.isnan(evidence).all(axis=1).tolist() == [True, False]


# Chastity.


def test_chastity_by_hand():
    shares = [[3, 1, 0, 0], [1, 1, 1, 1], [2, -1, -1, -1], [0, 0, 0, 0], [-1, -2, 0, 0], [0.6, 0, 0.4, 0.1]]
    assert chastity(np.array(shares)).tolist() == [75, 50, 100, 0, 0, 60]


def test_chastity_of_what_is_not_shown_is_unknown():
    assert chastity(np.array([[np.nan] * 4, [1, np.nan, 0, 0]])).tolist() == [UNKNOWN, UNKNOWN]
    assert chastity(np.zeros((0, 4))).shape == (0,)


@settings(deadline=None)
@given(arrays.arrays(np.float64, (5, 4), elements=st.floats(-1e3, 1e3)))
def test_chastity_is_half_to_whole_where_there_is_light(shares):
    percent = chastity(shares)
    lit = shares.max(axis=1) > 1e-4
    assert ((percent[lit] >= 50) & (percent[lit] <= 100)).all()
    assert (percent <= 100).all()
    np.testing.assert_array_equal(percent[lit], chastity(shares[:, ::-1] * 3)[lit])


@pytest.mark.parametrize("allowed", [0, 1, 2])
def test_failures_up_to_the_number_allowed_pass(allowed):
    percents = np.full((CYCLES, 5), MIN_PERCENT, np.uint8)
    for cluster in range(4):
        percents[:cluster, cluster] = MIN_PERCENT - 1
    percents[::2, 0] = UNKNOWN
    percents[:, 4] = UNKNOWN
    assert passes_filter(percents, failures_allowed=allowed).tolist() == [n <= allowed for n in range(4)] + [False]


# Scores.


def described(evidence, purity=90, crowding=0.0):
    evidence = np.asarray(evidence, float)
    pure = np.full((3, len(evidence)), purity, np.uint8)
    return features(evidence, pure, np.full(len(evidence), crowding, np.float32))


def test_features_by_hand():
    purity = np.array([[90, UNKNOWN], [70, UNKNOWN], [UNKNOWN, UNKNOWN]], np.uint8)
    evidence = np.array([[1, 4, -2, 3.5], [40, 0, 10, 0]])
    found = features(evidence, purity, np.array([0.4, 0], np.float32))
    assert found.dtype == np.float32
    impure, crowded = np.log([0.2 + 0.02, 0.02]), np.log([0.4 + 0.1, 0.1])
    margin = np.array([0.05, MAX_MARGIN / 10])
    assert found == pytest.approx(
        np.stack([margin, margin**2, impure, crowded, margin * impure, margin * crowded], axis=1), rel=1e-5
    )


def test_features_of_what_is_not_shown_are_finite():
    assert np.isfinite(described(np.full((2, 4), np.nan), purity=UNKNOWN)).all()
    assert features(np.zeros((0, 4)), np.zeros((3, 0), np.uint8), np.zeros(0, np.float32)).shape == (0, 6)


def test_the_predictor_is_the_weighted_sum():
    rows = np.arange(12, dtype=np.float32).reshape(2, 6)
    assert predictor(rows, (1, -1, 0, 0.5, 0, 2)).tolist() == [0 - 1 + 1.5 + 10, 6 - 7 + 4.5 + 22]


def test_a_score_is_that_of_the_bin_that_the_predictor_falls_into():
    rows = np.zeros((5, 6), np.float32)
    rows[:, 0] = 0, 0.3, 0.79, 0.8, 5
    assert scores(rows, TABLE).tolist() == [2, 15, 15, 30, 40]
    assert scores(rows, QualityTable(weights=(0,) * 6, edges=(), scores=(20,), binned=(12,))).tolist() == [20] * 5


def test_the_binned_table_has_the_binned_scores_as_its_scores():
    table = TABLE.model_copy(update={"binned": (2, 2, 12, 24)})
    few = binned(table)
    assert few.scores == (2, 2, 12, 24)
    assert (few.edges, few.weights) == (table.edges, table.weights)
    assert binned(few) == few


# A whole cycle.


def call(read, later=(), earlier=None, **options):
    number = len(read.shares)
    settings = {
        "cycle": 1 if earlier is None else len(earlier) + 1,
        "phasing": NONE,
        "purity": np.zeros((0, number), np.uint8),
        "quality": TABLE,
    }
    earlier = np.zeros((0, number), np.uint8) if earlier is None else earlier
    return call_cycle(read, list(later), earlier, **(settings | options))


def byte(base, score):
    return score << 2 | base


def test_bases_and_scores_are_in_one_byte():
    shares = np.array([[1, 0, 0, 0], [0, 1, 0, 0], [0.1, 0, 0.9, 0], [0, 0.49, 0, 0.51], [np.nan] * 4])
    found = call(reading(shares))
    # The pull of the ridge takes a share of 1 / 1.1 from the shares and its square from their variance.
    variance = (SPREAD**2 + 0.1**2) / 1.1
    margins = np.array([1, 1, 0.8, 0.02]) / variance / 10
    expected = np.array([2, 15, 30, 40])[np.searchsorted(TABLE.edges, margins, side="right")]
    assert expected.tolist() == [40, 40, 30, 2]
    assert found.calls.dtype == np.uint8
    assert found.calls.tolist() == [byte(0, 40), byte(1, 40), byte(2, 30), byte(3, 2), NO_CALL]
    assert found.chastity[[0, 3, 4]].tolist() == [98, 51, UNKNOWN]
    assert found.features.shape == (5, 6)
    assert found.neighbours is None


def test_a_called_cluster_is_never_a_no_call():
    shares = np.zeros((1, 4))
    assert call(reading(shares)).calls.tolist() == [byte(0, 2)]


def test_a_tile_without_clusters_is_called():
    nobody = reading(np.zeros((0, 4)))
    found = call(nobody, [nobody, None], np.zeros((3, 0), np.uint8))
    assert found.calls.shape == found.chastity.shape == (0,)
    assert found.neighbours is None


def test_scores_hear_of_impurity_around_the_call_and_of_crowding():
    weights = (0, 0, -1, -1, 0, 0)
    table = TABLE.model_copy(update={"weights": weights, "edges": (4.0, 5.0, 6.0)})
    shares = one_hot([0, 0, 0])
    mixed = reading([[1, 0, 0, 0], [0.5, 0.5, 0, 0], [1, 0, 0, 0]])
    found = call(reading(shares, crowding=[0, 0, 10]), [mixed, None], quality=table)
    first, impure, crowded = found.calls >> 2
    assert first > impure
    assert first > crowded
    # Purity of the first cycles counts too.
    before = np.array([[100, 100, 100], [50, 100, UNKNOWN]], np.uint8)
    again = call(reading(shares), purity=before, quality=table)
    impure, *pure = again.calls >> 2
    assert impure < min(pure)


PHASING = Phasing(0.01, 0.008)


def run_of_cycles(number=400, cycles=60, *, noise=0.05):
    rng = np.random.default_rng(5)
    bases = rng.integers(0, 4, (cycles, number))
    shown = strands(cycles=cycles, phasing=PHASING)
    light = np.tensordot(shown / np.diag(shown)[:, None], one_hot(bases), axes=1)
    return bases, [reading(shares + rng.normal(0, noise, shares.shape)) for shares in light]


def test_calls_are_made_with_those_before_and_readings_after():
    bases, readings = run_of_cycles()
    earlier = np.array([[byte(base, 30) for base in cycle] for cycle in bases[41:49]], np.uint8)
    found = call(readings[49], readings[50:52], earlier, cycle=50, phasing=PHASING)
    alone = call(readings[49])
    np.testing.assert_array_equal(found.calls & 3, bases[49])
    assert found.chastity.mean() > alone.chastity.mean() + 10
    shown = strands(cycles=60, phasing=PHASING)[49]
    assert found.neighbours.own == pytest.approx(1, abs=0.02)
    assert found.neighbours.behind == pytest.approx(shown[48] / shown[49], abs=0.03)
    assert found.neighbours.ahead == pytest.approx(shown[50] / shown[49], abs=0.03)


def test_earlier_no_calls_and_missing_later_cycles_are_no_obstacle():
    bases, readings = run_of_cycles()
    earlier = np.array([[byte(base, 30) for base in cycle] for cycle in bases[41:49]], np.uint8)
    earlier[-1, :100] = NO_CALL
    earlier[3] = NO_CALL
    found = call(readings[49], [None, readings[51]], earlier, cycle=50, phasing=PHASING)
    assert ((found.calls & 3) == bases[49]).mean() > 0.9
    assert ((found.calls & 3) == bases[49])[100:].mean() > 0.97
    assert found.neighbours is None
    assert call(readings[49], [], earlier, cycle=50, phasing=PHASING).neighbours is None


def test_only_clusters_called_before_and_shown_after_say_what_is_out_of_step():
    # Before C, own G, after T; the fourth base A shows nothing.
    now = reading([[0, 0.2, 1, 0.1]] * 3)
    after = reading(one_hot([3, 3, 3]))
    after.shares[1] = np.nan
    earlier = np.array([[byte(1, 30), byte(1, 30), NO_CALL]], np.uint8)
    found = call(now, [after, None], earlier)
    assert (found.neighbours.behind, found.neighbours.ahead) == pytest.approx((0.2, 0.1))
    assert call(now, [reading(np.full((3, 4), np.nan)), None], earlier).neighbours is None


def test_probabilities_of_calls_are_what_their_scores_say():
    calls = np.array([[byte(0, 10), byte(3, 20), NO_CALL]], np.uint8)
    found = base_probabilities(calls)
    assert found.shape == (1, 3, 4)
    assert found[0, 0] == pytest.approx([0.9, 0.1 / 3, 0.1 / 3, 0.1 / 3])
    assert found[0, 1] == pytest.approx([0.01 / 3, 0.01 / 3, 0.01 / 3, 0.99])
    assert found[0, 2] == pytest.approx([0.25] * 4)
    assert base_probabilities(np.zeros((0, 5), np.uint8)).shape == (0, 5, 4)


@settings(deadline=None)
@given(arrays.arrays(np.uint8, (3, 4), elements=st.integers(0, 50 << 2 | 3).filter(lambda call: call == 0 or call > 7)))
def test_probabilities_sum_to_one(calls):
    found = base_probabilities(calls)
    assert found.sum(axis=2) == pytest.approx(1, abs=1e-5)
    assert (found >= 0).all()


# Fitting the table.


def known_calls(number, seed, *, worse=0.0):
    """Calls whose error probability the features tell, and that probability."""
    rng = np.random.default_rng(seed)
    evidence = -np.sort(-rng.exponential(6, (number, 4)), axis=1)
    pure = rng.integers(50, 101, (1, number)).astype(np.uint8)
    rows = features(evidence, pure, rng.exponential(0.5, number).astype(np.float32))
    odds = 1.5 + 4 * rows[:, 0] - 1.2 * rows[:, 2] - 0.6 * rows[:, 3] - worse
    probability = 1 / (1 + np.exp(odds.astype(float)))
    return KnownCalls(rows, rng.random(number) < probability), probability


def test_fitted_scores_are_what_errors_show():
    table = fit_quality([known_calls(200_000, 1)[0], known_calls(200_000, 2)[0]])
    assert list(table.scores) == sorted(table.scores)
    assert 2 <= table.scores[0] <= 10
    assert table.scores[-1] >= 34
    fresh, probability = known_calls(200_000, 3)
    given_scores = scores(fresh.features, table)
    claimed = np.unique(given_scores)
    claimed = np.array([score for score in claimed if fresh.wrong[given_scores == score].sum() >= 60])
    shown = np.array([-10 * np.log10(fresh.wrong[given_scores == score].mean()) for score in claimed])
    assert len(claimed) > 8
    # Scores are cut to whole numbers and lowered where they would fall: they err to the careful side.
    assert shown - claimed == pytest.approx(0.6, abs=1.4)
    assert np.abs(shown - claimed).mean() < 1.2
    # The weights order calls as their true probability does.
    order = np.argsort(predictor(fresh.features, table.weights))
    tenths = np.array_split(probability[order], 10)
    assert np.all(np.diff([tenth.mean() for tenth in tenths]) < 0)


def test_a_run_counts_by_the_square_root_of_its_calls():
    one, other = known_calls(20_000, 4, worse=2)[0], known_calls(20_000, 5)[0]
    often = KnownCalls(np.tile(other.features, (5, 1)), np.tile(other.wrong, 5))
    rows = known_calls(5000, 6)[0].features
    alike, larger, drowned = (
        scores(rows, fit_quality(runs)).mean() for runs in ([one, other], [one, often], [one, *[other] * 5])
    )
    # Five times the calls, known five times as well or from five runs: 2.2 times the say, or 5 times.
    assert alike + 0.5 < larger < drowned - 0.5


def test_a_small_run_beside_a_large_one_claims_no_more_than_its_own_calls():
    # The small run's calls, all right, are the surest; each of them stands for 200.
    rows = np.zeros((20_100, 6), np.float32)
    rows[:100, 0] = 10
    rows[100:, 0] = np.linspace(0, 1, 20_000)
    wrong = np.random.default_rng(9).random(20_100) < 0.2
    wrong[:100] = False
    table = fit_quality([KnownCalls(rows[:100], wrong[:100]), KnownCalls(rows[100:], wrong[100:])])
    assert max(table.scores) <= 10 * np.log10(101)


def test_a_run_without_calls_counts_for_nothing():
    calls = known_calls(3000, 7)[0]
    nothing = KnownCalls(np.zeros((0, 6), np.float32), np.zeros(0, bool))
    assert fit_quality([nothing, calls, nothing]) == fit_quality([calls])


@pytest.mark.parametrize("all_wrong", [False, True])
def test_calls_that_are_all_alike_make_a_careful_table(all_wrong):
    calls = known_calls(500, 8)[0]
    table = fit_quality([KnownCalls(calls.features, np.full(500, all_wrong))])
    assert max(table.scores) <= (2 if all_wrong else 10 * np.log10(501))


def shown_by(wrong):
    """Phred score of calls, one error added."""
    return -10 * np.log10((wrong.sum() + 1) / (len(wrong) + 1))


def assert_monotone_and_supported(table, predictors, wrong):
    assert max(table.scores) <= HIGHEST_SCORE
    index = np.searchsorted(np.array(table.edges, np.float32), predictors, side="right")
    for claimed in (table.scores, table.binned):
        assert list(claimed) == sorted(claimed)
        scored = np.array(claimed)[index]
        for score in set(scored[scored > 2].tolist()):
            shown = shown_by(wrong[scored == score])
            assert score <= shown + 1e-9, f"{score}: {(scored == score).sum()} calls show {shown}"


def table_of(predictors, wrong):
    return fit_table(predictors, wrong, np.ones(len(wrong)), weights=TABLE.weights)


@pytest.mark.parametrize("number", [1, 30, 1000, 100_000])
def test_a_table_rises_and_claims_no_more_than_its_counts(number):
    rng = np.random.default_rng(number)
    predictors = rng.beta(4, 1, number).astype(np.float32)
    wrong = rng.random(number) < 0.5 * (1 - predictors) ** 1.5
    table = table_of(predictors, wrong)
    assert table.weights == TABLE.weights
    assert_monotone_and_supported(table, predictors, wrong)
    if number == 100_000:
        assert table.scores[0] < 12
        assert table.scores[-1] > 25
        assert set(table.binned) == {2, 12, 24}


@settings(deadline=None)
@given(st.data())
def test_a_table_of_few_calls_claims_no_more_than_they_show(data):
    number = data.draw(st.integers(1, 60))
    predictors = data.draw(arrays.arrays(np.float32, number, elements=st.floats(-3, 3, width=32)))
    wrong = data.draw(arrays.arrays(np.bool_, number))
    assert_monotone_and_supported(table_of(predictors, wrong), predictors, wrong)


def test_a_table_is_careful_where_the_predictor_misleads():
    predictors = np.linspace(0, 1, 24_000, dtype=np.float32)
    wrong = (predictors > 0.7) & (np.arange(24_000) % 2 == 0)
    table = table_of(predictors, wrong)
    assert_monotone_and_supported(table, predictors, wrong)
    # No order is claimed where there is none.
    assert set(table.scores) == {int(shown_by(wrong))}


def test_a_table_keeps_what_few_distinct_predictors_show():
    predictors = np.repeat(np.array([0.2, 0.9], np.float32), (500, 5000))
    wrong = np.arange(5500) < 250
    table = table_of(predictors, wrong)
    assert_monotone_and_supported(table, predictors, wrong)
    assert table.scores[np.searchsorted(table.edges, np.float32(0.9), side="right")] >= 36


def test_bins_without_a_difference_claim_what_they_show_together():
    rng = np.random.default_rng(13)
    # The top half is right throughout: 10,000 calls in bins of which none alone shows even 34.
    predictors = np.linspace(0, 1, 20_000, dtype=np.float32)
    wrong = (predictors < 0.5) & (rng.random(20_000) < 0.3)
    table = table_of(predictors, wrong)
    assert_monotone_and_supported(table, predictors, wrong)
    _, calls = np.unique(np.searchsorted(table.edges, predictors[predictors > 0.6], side="right"), return_counts=True)
    assert shown_by(np.zeros(calls.max(), bool)) < 34
    assert table.scores[-1] >= 39
    assert set(np.array(table.scores)[np.array([*table.edges, 1]) > 0.6]) == {table.scores[-1]}


def test_the_binned_score_of_the_sure_is_40_where_enough_of_them_are_right():
    predictors = np.linspace(0, 1, 50_000, dtype=np.float32)
    wrong = (predictors < 0.2) & (np.arange(50_000) % 2 == 0)
    table = table_of(predictors, wrong)
    assert_monotone_and_supported(table, predictors, wrong)
    assert set(table.binned) == {2, 40}
    few = table_of(predictors[::10], wrong[::10] | (np.arange(5000) == 4000))
    assert set(few.binned) == {2, 24}


def test_a_table_has_no_empty_bin_between_calls():
    predictors = np.repeat(np.array([0.2, 0.9], np.float32), 13)
    table = table_of(predictors, np.zeros(26, bool))
    index = np.searchsorted(np.array(table.edges, np.float32), predictors, side="right")
    assert set(index.tolist()) == set(range(1, len(table.scores)))
    assert {table.scores[bin_] for bin_ in index} == {int(shown_by(np.zeros(26, bool)))}


def test_a_table_never_exceeds_its_cap():
    table = table_of(np.linspace(0, 1, 2_000_000, dtype=np.float32), np.zeros(2_000_000, bool))
    assert set(table.scores) == {HIGHEST_SCORE}


def test_calls_that_stand_for_as_many_each_show_what_single_calls_do():
    rng = np.random.default_rng(10)
    predictors = rng.random(3000).astype(np.float32)
    wrong = rng.random(3000) < 0.1
    tables = [fit_table(predictors, wrong, np.full(3000, each), weights=TABLE.weights) for each in (0.01, 1.0, 50.0)]
    assert tables[0] == tables[1] == tables[2]
