"""Bootstrap intervals: against scipy's plain bootstrap, theory, and what pairing is for."""

import numpy as np
import pytest
from scipy.stats import bootstrap

from reference_models.errors import InputError
from reference_models.measures.intervals import RESAMPLES, intervals
from reference_models.measures.per_image import Measured

RNG = np.random.default_rng(0)


def run(count: int = 200, **values: np.ndarray) -> Measured:
    stems = tuple(map(str, range(count)))
    return Measured(stems, {m: v.reshape(count, -1) for m, v in values.items()})


def both(count: int = 200, gain: float = 0.02, noise: float = 0.03) -> tuple[Measured, Measured]:
    """Two runs that find the same images hard; F as a curve of five thresholds."""
    hard = RNG.uniform(0.2, 0.9, (count, 1))
    shape = np.array([0.7, 0.9, 1.0, 0.95, 0.6])
    runs = []
    for plus in (gain, 0):
        mae, f = (hard + plus + noise * RNG.normal(size=(count, k)) for k in (1, 5))
        runs.append(run(count, mae=mae, max_f=f * shape))
    return runs[0], runs[1]


def test_a_mean_is_that_of_scipys_paired_bootstrap():
    of, minus = both()
    expected = bootstrap(
        (of.values["mae"][:, 0], minus.values["mae"][:, 0]),
        lambda a, b, axis: (a - b).mean(axis=axis),
        paired=True,
        vectorized=True,
        batch=500,
        n_resamples=RESAMPLES,
        method="percentile",
        rng=np.random.default_rng(0),
    ).confidence_interval
    assert intervals([of], [minus], ["mae"])["mae"] == pytest.approx(expected, abs=1e-12)


def test_max_f_is_the_highest_point_of_each_resampled_mean_curve():
    of, minus = both(60, noise=0.3)
    draws = np.random.default_rng(1).integers(0, 60, (RESAMPLES, 60))
    differences = [of.mean("max_f", i) - minus.mean("max_f", i) for i in draws]
    expected = np.percentile(differences, [2.5, 97.5])
    # Other draws of the same distribution.
    assert intervals([of], [minus], ["max_f"])["max_f"] == pytest.approx(expected, abs=0.01)


def test_without_a_second_run_it_is_that_of_the_value():
    one, _ = both(400)
    values = one.values["mae"][:, 0]
    low, high = intervals([one], None, ["mae"])["mae"]
    error = 1.96 * values.std() / 20
    assert (low, high) == pytest.approx((values.mean() - error, values.mean() + error), abs=0.003)


def test_pairing_takes_the_images_difficulty_out():
    of, minus = both()
    low, high = intervals([of], [minus], ["mae"])["mae"]
    alone = intervals([of], None, ["mae"])["mae"]
    assert high - low < 0.3 * (alone[1] - alone[0])
    assert low > 0


def test_it_covers_the_truth_as_often_as_it_says():
    inside = 0
    for _ in range(60):
        low, high = intervals(*([one] for one in both(80)), ["mae"])["mae"]
        inside += low <= 0.02 <= high
    assert 51 <= inside <= 60


def test_seeds_that_differ_widen_it():
    of, minus = both(noise=0)
    by_seed = [run(mae=of.values["mae"] + shift) for shift in (-0.1, 0, 0.1)]
    low, high = intervals(by_seed, [minus] * 3, ["mae"])["mae"]
    # All three draws fall on the same end in one of 27 resamples.
    assert (low, high) == pytest.approx((0.02 - 0.1, 0.02 + 0.1))
    one = intervals([of], [minus], ["mae"])["mae"]
    same = intervals([of] * 3, [minus] * 3, ["mae"])["mae"]
    assert same == pytest.approx(one, abs=1e-9)


def test_runs_that_agree_on_every_image_differ_by_exactly_nothing():
    one, _ = both()
    found = intervals([one, one], [one, one], ["mae", "max_f"])
    assert found == {"mae": (0, 0), "max_f": (0, 0)}


def test_images_for_which_a_measure_is_not_defined_are_left_out():
    of, minus = both()
    holes = [v.values["mae"].copy() for v in (of, minus)]
    for values in holes:
        values[:100] = np.nan
    low, high = intervals(*([run(mae=values)] for values in holes), ["mae"])["mae"]
    mean = float((of.values["mae"] - minus.values["mae"])[100:].mean())
    assert low < mean < high
    assert high - low < 0.05


def test_it_is_the_same_every_time():
    of, minus = both()
    assert intervals([of], [minus], ["max_f"]) == intervals([of], [minus], ["max_f"])


def test_runs_that_cannot_be_paired():
    of, minus = both()
    with pytest.raises(InputError, match=r"the same images .* 100 in one and None in"):
        intervals([of], [both(100)[0]], ["mae"])
    with pytest.raises(InputError, match="each seed needs a run of both recipes, got 2 and 1"):
        intervals([of, of], [minus], ["mae"])
