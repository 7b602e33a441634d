"""Intervals: against scipy's plain bootstrap, Student's t, theory, and what pairing is for."""

import numpy as np
import pytest
from scipy.stats import bootstrap, t

from reference_models.errors import InputError
from reference_models.measures.intervals import RESAMPLES, interval, standard_errors
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
    ).standard_error
    found = standard_errors([of], [minus], ["mae"])["mae"]
    assert found == pytest.approx(expected, abs=1e-12)


def test_max_f_is_the_highest_point_of_each_resampled_mean_curve():
    of, minus = both(60, noise=0.3)
    draws = np.random.default_rng(1).integers(0, 60, (RESAMPLES, 60))
    differences = [of.mean("max_f", i) - minus.mean("max_f", i) for i in draws]
    # Other draws of the same distribution.
    found = standard_errors([of], [minus], ["max_f"])["max_f"]
    assert found == pytest.approx(np.std(differences), rel=0.1)


def test_without_a_second_run_it_is_that_of_the_value():
    one, _ = both(400)
    found = standard_errors([one], None, ["mae"])["mae"]
    assert found == pytest.approx(one.values["mae"].std() / 20, rel=0.1)


def test_pairing_takes_the_images_difficulty_out():
    of, minus = both()
    paired, alone = (standard_errors([of], other, ["mae"])["mae"] for other in ([minus], None))
    assert paired < 0.3 * alone


def test_seeds_share_the_images():
    of, minus = both()
    one = standard_errors([of], [minus], ["mae"])["mae"]
    assert standard_errors([of] * 3, [minus] * 3, ["mae"])["mae"] == pytest.approx(one, abs=1e-9)


def test_an_interval_is_that_of_students_t_over_seeds():
    values = [0.1, 0.13, 0.1]
    expected = t.interval(0.95, 2, np.mean(values), np.std(values, ddof=1) / np.sqrt(3))
    assert interval(values, None) == pytest.approx(expected)


def test_an_interval_adds_the_squares_of_both_half_widths():
    assert interval([0.2], 0.01) == pytest.approx((0.2 - 0.0196, 0.2 + 0.0196), abs=1e-5)
    over_seeds, over_images = (interval(*of)[1] - 0.2 for of in (([0.1, 0.3], None), ([0.2], 0.5)))
    both_kinds = interval([0.1, 0.3], 0.5)[1] - 0.2
    assert both_kinds == pytest.approx(np.hypot(over_seeds, over_images))
    assert interval([0.2, 0.2], 0.0) == (0.2, 0.2)
    assert interval([0.2], None) is None


@pytest.mark.parametrize("seeds", [1, 3])
def test_it_covers_the_truth_as_often_as_it_says(seeds: int):
    """Images and seeds both vary, and so does how hard an image is for a seed."""
    rng, inside = np.random.default_rng(5), 0
    for _ in range(200):
        images = rng.normal(size=(80, 1))
        shifts = rng.normal(scale=0.2, size=seeds) * (seeds > 1)
        runs = [run(80, mae=images + s + 0.3 * rng.normal(size=(80, 1))) for s in shifts]
        found = standard_errors(runs, None, ["mae"])["mae"]
        low, high = interval([one.mean("mae") for one in runs], found)
        inside += low <= 0 <= high
    assert 0.92 <= inside / 200 <= 0.99


def test_runs_that_agree_on_every_image_differ_by_exactly_nothing():
    one, _ = both()
    found = standard_errors([one, one], [one, one], ["mae", "max_f"])
    assert found == {"mae": 0, "max_f": 0}


def test_images_for_which_a_measure_is_not_defined_are_left_out():
    of, minus = both()
    holes = [v.values["mae"].copy() for v in (of, minus)]
    for values in holes:
        values[:100] = np.nan
    found = standard_errors(*([run(mae=values)] for values in holes), ["mae"])["mae"]
    expected = (of.values["mae"] - minus.values["mae"])[100:].std() / 10
    assert found == pytest.approx(expected, rel=0.15)


def test_it_is_the_same_every_time():
    of, minus = both()
    first, second = (standard_errors([of], [minus], ["max_f"]) for _ in range(2))
    assert first == second


def test_runs_that_cannot_be_paired():
    of, minus = both()
    with pytest.raises(InputError, match=r"the same images .* 100 in one and None in"):
        standard_errors([of], [both(100)[0]], ["mae"])
    with pytest.raises(InputError, match="each seed needs a run of both recipes, got 2 and 1"):
        standard_errors([of, of], [minus], ["mae"])
