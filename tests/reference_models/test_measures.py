"""Measures: hand cases, other libraries, definitions by brute force."""

import csv
import warnings
from concurrent.futures.process import BrokenProcessPool
from itertools import combinations

import numpy as np
import py_sod_metrics
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from PIL import Image
from sklearn.metrics import jaccard_score, roc_auc_score

from reference_models.errors import InputError
from reference_models.measures import saliency as measures
from reference_models.measures.saliency import (
    CURVES,
    EXACT,
    NAMES,
    eight_bit,
    mean_curves,
    measure,
    measure_each,
    one_line,
)
from reference_models.measures.segmentation import measure_segmentation
from tests.losses.test_real_masks import image
from tests.support.paths import DATA, ROOT


def blobs(count: int, size: int = 40, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Unsure maps of rectangles, and the rectangles."""
    rng = np.random.default_rng(seed)
    masks = np.zeros((count, size, size), dtype=bool)
    for mask in masks:
        top, left = rng.integers(2, size // 2, 2)
        mask[top : top + size // 3, left : left + size // 4] = True
    return np.clip(0.3 + 0.4 * masks + rng.normal(0, 0.2, masks.shape), 0, 1), masks


def top_half(count: int = 1) -> np.ndarray:
    mask = np.zeros((count, 4, 4), dtype=bool)
    mask[:, :2] = True
    return mask


# Hand cases --------------------------------------------------------------------------------------


def test_a_perfect_map_and_half_of_the_object():
    mask = top_half()
    perfect = measure(mask, mask, exact=True)
    assert perfect["mae"] == 0
    assert set(perfect) == {*NAMES, *EXACT}
    for name in ("f", "max_f", "weighted_f", "s", "auroc", *EXACT):
        assert perfect[name] == pytest.approx(1), name
    assert perfect["e"] == pytest.approx(16 / 15)  # The paper divides by one pixel fewer.

    # Half of the object found, nothing else: P = 1, R = 1/2, F = 1.3 * .5 / (.3 + .5).
    half = mask.astype(float)
    half[0, 1] = 0
    found = measure(half, mask)
    assert found["mae"] == pytest.approx(1 / 4)
    assert found["f"] == pytest.approx(1.3 * 0.5 / 0.8)


def test_mean_iou_by_hand():
    mask = top_half()
    soft = np.array([0.9, 0.5, 0.2, 0.1])[None, :, None] * np.ones((1, 4, 4))
    assert measure(soft, mask)["miou"] == 1  # ½ itself is object, since maps round to 128 / 255.
    half = mask & (np.arange(4) < 2)[:, None] & (np.arange(4) < 2)
    # The object: 4 of 8 pixels found; the background: 8 pixels of 12.
    assert measure(half, mask)["miou"] == pytest.approx((4 / 8 + 8 / 12) / 2)
    every = np.ones((1, 4, 4), dtype=bool)
    assert measure(every, mask)["miou"] == pytest.approx((8 / 16 + 0) / 2)
    both_full = measure_each(every, every, ["miou"])
    assert both_full == [{"miou": 1.0}]


def test_precision_and_recall_by_hand():
    """Two images, and a third without an object, which does not count."""
    maps = np.array([[[255, 100], [100, 0]], [[255, 100], [50, 0]], [[1, 2], [3, 4]]], np.uint8)
    masks = np.zeros((3, 2, 2), dtype=bool)
    masks[:2, 0] = True
    rows = measure_each(maps, masks, CURVES)
    curves = mean_curves(rows)
    thresholds = list(range(255, -1, -5))
    assert [len(curve) for curve in curves.values()] == [len(thresholds)] * 2
    at = {threshold: place for place, threshold in enumerate(thresholds)}
    for threshold, precision, recall in (
        (255, 1, 1 / 2),
        (105, 1, 1 / 2),
        (100, (2 / 3 + 1) / 2, 1),
        (50, 2 / 3, 1),
        (0, 1 / 2, 1),
    ):
        assert curves["precision"][at[threshold]] == pytest.approx(precision, abs=1e-4)
        assert curves["recall"][at[threshold]] == pytest.approx(recall, abs=1e-4)
    # The F curve of an image follows from its precision and recall.
    blurred, shapes = blobs(1)
    (row,) = measure_each(blurred, shapes, ("max_f", *CURVES))
    precision, recall = row["precision"], row["recall"]
    f = 1.3 * precision * recall / np.maximum(0.3 * precision + recall, 1e-9)
    np.testing.assert_allclose(row["max_f"], f, atol=1e-12)


def test_maps_are_not_stretched_and_round_to_8_bits():
    mask = top_half()
    unsure = np.where(mask, 0.6, 0.3)
    assert measure(unsure, mask)["mae"] == pytest.approx(
        (153 / 255 - 0.6 + 0.4 + 0.3) / 2, abs=1e-3
    )
    # Twice the mean is .9, above every value: nothing is found at that threshold.
    assert measure(unsure, mask)["f"] == 0
    assert measure(unsure, mask)["max_f"] == pytest.approx(1)
    assert measure(unsure, mask) == measure(np.rint(255 * unsure).astype(np.uint8), mask)


def test_an_empty_mask_counts_in_the_mae_alone():
    mask = top_half(2)
    mask[1] = False
    maps = mask.astype(float)
    maps[1] = 1
    both, first = measure(maps, mask, exact=True), measure(maps[:1], mask[:1], exact=True)
    assert both["mae"] == 0.5
    assert both | {"mae": 0} == first


def test_a_mask_that_is_all_object_is_left_out_of_the_auroc():
    mask = top_half(2)
    mask[1] = True
    maps = np.where(top_half(2), 0.4, 0.6)
    row = measure(maps, mask)
    assert row["auroc"] == 0
    for name in NAMES:
        assert 0 <= row[name] <= 1, name


def test_an_object_within_the_last_row_or_column_has_an_s_measure():
    """Quadrants about its centroid are empty there; they weigh nothing."""
    maps, masks = blobs(1)
    for line in (np.s_[0, -1, 5:12], np.s_[0, 5:12, -1], np.s_[0, -1, -1]):
        masks[:] = False
        masks[line] = True
        found, perfect = measure(maps, masks, only=["s"]), measure(masks, masks, only=["s"])
        assert 0 < found["s"] < 0.7
        assert perfect["s"] > 0.99


def test_auroc_is_the_share_of_pairs_in_order():
    """Object .2, .6, .6; background .2, .4, .6: 9 pairs, 4 in order, 3 equal."""
    values = np.array([[0.2, 0.6, 0.6], [0.2, 0.4, 0.6]])
    mask = np.array([[True] * 3, [False] * 3])
    assert measure([values], [mask], only=["auroc"]) == {"auroc": pytest.approx((4 + 3 / 2) / 9)}


# Other libraries ---------------------------------------------------------------------------------


def test_the_row_is_what_pysodmetrics_computes():
    maps, masks = blobs(5)
    mae, weighted = py_sod_metrics.MAE(), py_sod_metrics.WeightedFmeasure(beta=1)
    structure, alignment = py_sod_metrics.Smeasure(), py_sod_metrics.Emeasure()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # It prefers its FmeasureV2.
        fmeasure = py_sod_metrics.Fmeasure(beta=0.3)
    for values, mask in zip(np.rint(255 * maps) / 255, masks, strict=True):
        for measured in (mae, weighted, structure, alignment, fmeasure):
            measured.step(values, mask, normalize=False)
    row = measure(maps, masks)
    assert row == {
        "mae": pytest.approx(mae.get_results()["mae"], abs=1e-12),
        "f": pytest.approx(fmeasure.get_results()["fm"]["adp"], abs=1e-12),
        "max_f": pytest.approx(fmeasure.get_results()["fm"]["curve"].max(), abs=1e-12),
        # Among equally near object pixels SciPy takes any, and we the first.
        "weighted_f": pytest.approx(weighted.get_results()["wfm"], abs=1e-3),
        "s": pytest.approx(structure.get_results()["sm"], abs=1e-12),
        "e": pytest.approx(alignment.get_results()["em"]["curve"].max(), abs=1e-12),
        "auroc": pytest.approx(
            np.mean(
                [
                    roc_auc_score(mask.ravel(), np.rint(255 * values).ravel())
                    for values, mask in zip(maps, masks, strict=True)
                ]
            ),
            abs=1e-12,
        ),
        "miou": pytest.approx(
            np.mean(
                [
                    jaccard_score(mask.ravel(), (values >= 0.5).ravel(), average="macro")
                    for values, mask in zip(maps, masks, strict=True)
                ]
            ),
            abs=1e-12,
        ),
    }


DETECTORS = ("DRFI", "RC", "HS", "CHS", "MF_supervised", "MF_heuristic", "IG", "SR")


@pytest.mark.skipif(not (DATA / "ecssd_baselines.zip").exists(), reason="no ecssd_baselines.zip")
def test_rows_of_real_maps_are_the_programs_to_the_digits_that_are_kept():
    """Files of rows keep thousandths, and documents print four digits of a mean."""
    ours, theirs = [], []
    for place, detector in enumerate(DETECTORS):
        stem = f"{100 * place + 23:04}"
        mask = np.asarray(image("ecssd", f"masks/{stem}.png").convert("L")) > 127
        saliency = image("ecssd_baselines", f"{detector}/{stem}.webp").convert("L")
        values = np.asarray(saliency.resize(mask.shape[::-1]))
        ours += measure_each([values], [mask], NAMES + CURVES)
        theirs.append(of_the_program(values / 255, mask))
    for row, expected in zip(ours, theirs, strict=True):
        for name in set(expected) - {"weighted_f"}:
            np.testing.assert_allclose(row[name], expected[name], atol=1e-9, err_msg=name)
    weighted = np.array([[rows[i]["weighted_f"] for rows in (ours, theirs)] for i in range(8)])
    assert np.abs(weighted[:, 0] - weighted[:, 1]).max() < 5e-4
    assert abs(weighted[:, 0].mean() - weighted[:, 1].mean()) < 5e-5


def test_means_of_real_maps_are_the_programs_to_four_digits():
    with (ROOT / "results/benchmarks/measures.csv").open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    assert {row["detector"] for row in rows} == set(DETECTORS)
    assert all(abs(float(row["ours"]) - float(row["program"])) < 5e-6 for row in rows)


def of_the_program(values: np.ndarray, mask: np.ndarray) -> dict[str, np.ndarray]:
    handlers = {
        "f": py_sod_metrics.FmeasureHandler(True, True, beta=0.3),
        "precision": py_sod_metrics.PrecisionHandler(True, False),
        "recall": py_sod_metrics.RecallHandler(True, False),
    }
    alignment, weighted = py_sod_metrics.Emeasure(), py_sod_metrics.WeightedFmeasure(beta=1)
    for program in (py_sod_metrics.FmeasureV2(handlers), alignment, weighted):
        program.step(values, mask, normalize=False)
    return {
        "mae": py_sod_metrics.MAE().cal_mae(values, mask),
        "f": handlers["f"].adaptive_results[0],
        "max_f": handlers["f"].dynamic_results[0],
        "precision": handlers["precision"].dynamic_results[0],
        "recall": handlers["recall"].dynamic_results[0],
        "s": py_sod_metrics.Smeasure().cal_sm(values, mask),
        "e": alignment.changeable_ems[0],
        "weighted_f": weighted.get_results()["wfm"],
    }


def test_the_exact_weighted_f_is_the_reference():
    from saliency_losses.reference import weighted_fbeta_score

    maps, masks = blobs(2, size=20)
    values = np.rint(255 * maps) / 255
    expected = np.mean(
        [
            weighted_fbeta_score(value[None], mask[None].astype(float))
            for value, mask in zip(values, masks, strict=True)
        ]
    )
    row = measure(maps, masks, exact=True)
    assert row["weighted_f_exact"] == pytest.approx(expected, abs=1e-10)
    assert row["weighted_f_loss"] > row["weighted_f_exact"]  # Squared errors are smaller.


def test_only_what_is_asked_is_measured():
    maps, masks = blobs(2)
    whole = measure(maps, masks, exact=True)
    for name in NAMES + EXACT:
        assert measure(maps, masks, only=[name]) == {name: whole[name]}


# Sizes, kinds, processes -------------------------------------------------------------------------


def test_a_map_of_another_size_is_resized_to_its_mask():
    maps, masks = blobs(3)
    wide = [np.repeat(mask, 2, axis=1) for mask in masks]
    resized = [
        np.asarray(Image.fromarray(values.astype(np.float32)).resize((80, 40), 2))
        for values in maps
    ]
    row, expected = measure(maps, wide), measure(resized, wide)
    assert row == pytest.approx(expected, abs=1e-4)
    assert measure(maps.astype(np.float32), wide) == row
    assert eight_bit(np.full((3, 3), 0.4), (7, 5)).tolist() == [[102] * 5] * 7


@pytest.mark.parametrize("shape", [(97, 61), (200, 9), (10, 10), (7, 90), (33, 40)])
def test_maps_are_resized_as_by_pillow(shape: tuple[int, int]):
    values = np.random.default_rng(0).random((33, 40)).astype(np.float32)
    whole = Image.fromarray((255 * values.astype(float)).astype(np.float32))
    expected = np.rint(np.asarray(whole.resize(shape[::-1], Image.Resampling.BILINEAR)))
    np.testing.assert_array_equal(eight_bit(values, shape), expected)


@pytest.mark.slow
def test_processes_change_nothing(monkeypatch):
    maps, masks = blobs(30)
    masks[3] = False
    masks[4] = True
    serial = measure(maps, masks, exact=True, workers=1)
    assert measure(maps, masks, exact=True, workers=2) == pytest.approx(serial, abs=1e-12)
    with pytest.raises(InputError, match=r"maps\[29\] must lie in 0..1"):
        measure([*maps[:-1], maps[-1] + 1], masks, workers=2)
    measures.pool(2).shutdown()
    measures.pool.cache_clear()

    def asked(workers: int) -> None:
        raise LookupError(workers)

    monkeypatch.setattr(measures, "pool", asked)
    monkeypatch.setattr(measures, "cores", lambda: 7)
    assert measure(maps, masks) == {name: serial[name] for name in NAMES}
    with pytest.raises(LookupError, match="7"):
        measure(np.repeat(maps, 7, axis=0), np.repeat(masks, 7, axis=0))


@pytest.mark.parametrize(
    ("change", "match"),
    [
        (lambda maps, masks: (maps[:1], masks), "got 1 map and 2 masks"),
        (lambda maps, masks: ([], []), "at least 1, got 0 maps and 0 masks"),
        (lambda maps, masks: (maps, masks.astype(float)), r"masks\[0\] must be bool .*got float64"),
        (lambda maps, masks: (maps[:, None], masks), r"maps\[0\] must be \(height, width\), got"),
        (lambda maps, masks: (255 * maps, masks), r"maps\[0\] must lie in 0..1, got .*as uint8"),
        (lambda maps, masks: (maps - 0.5, masks), r"maps\[0\] must lie in 0..1, got -0\."),
        (lambda maps, masks: (np.where(masks, np.nan, maps), masks), "in 0..1, got nan"),
        (lambda maps, masks: (maps.astype(int), masks), "floats in 0..1, bool, or uint8.*int64"),
        (lambda maps, masks: (maps, masks & False), "f is not defined, because no mask has both"),
    ],
)
def test_bad_input_is_named(change, match):
    with pytest.raises(InputError, match=match):
        measure(*change(*blobs(2)))


def test_an_unknown_measure_is_named():
    with pytest.raises(InputError, match="1 unknown measure: max-f; choose from mae, f"):
        measure(*blobs(2), only=["mae", "max-f"])


def test_one_line():
    assert one_line(measure(top_half(), top_half())) == (
        "MAE 0.000   F 1.000   max F 1.000   weighted F 1.000"
    )


# Label maps --------------------------------------------------------------------------------------

# scikit-learn wonders whether so many labels on so few pixels are meant.
few_pixels = pytest.mark.filterwarnings("ignore:The number of unique classes")


def halves_and_quarters() -> tuple[np.ndarray, np.ndarray]:
    halves = np.repeat([[0, 1]], 4, axis=0).repeat(2, axis=1)
    quarters = halves + 2 * halves.T
    return halves, quarters


def test_halves_against_quarters():
    """Each quarter lies in a half: IoU 1/2. Of the 120 pairs of 16 pixels the two differ on those
    of one half but two quarters: 2 · 4 · 4 = 32. The quarter tells 1 bit more."""
    halves, quarters = halves_and_quarters()
    expected = {
        "covering": pytest.approx(1 / 2),
        "rand": pytest.approx(1 - 32 / 120),
        "variation_of_information": pytest.approx(1),
    }
    assert measure_segmentation([halves], [quarters[None]]) == expected | {"regions": 2}
    assert measure_segmentation([quarters], [halves[None]]) == expected | {"regions": 4}
    # Means over annotators, then over images.
    row = measure_segmentation([halves, halves], [np.stack([halves, quarters]), halves[None]])
    assert row["covering"] == pytest.approx((3 / 4 + 1) / 2)
    assert row["rand"] == pytest.approx(1 - 32 / 120 / 4)
    assert row["variation_of_information"] == pytest.approx(1 / 4)


def test_the_covering_is_of_the_truth_by_the_map():
    """An annotator's third and two thirds, the map one region: 1/3 · 1/3 + 2/3 · 2/3. The other
    way round it is the IoU of the greater, 2/3."""
    truth = np.array([[[0, 1, 1]] * 3])
    whole = np.zeros((3, 3), dtype=int)
    assert measure_segmentation([whole], [truth])["covering"] == pytest.approx(5 / 9)
    assert measure_segmentation([truth[0]], [whole[None]])["covering"] == pytest.approx(2 / 3)


def test_a_region_may_lie_in_pieces():
    pieces = np.array([[5, 9, 5], [5, 9, 5], [9, 5, 5]])
    truth = np.array([[[0, 1, 2], [0, 1, 2], [3, 2, 2]]])
    assert measure_segmentation([pieces], [truth])["regions"] == 2


def test_a_label_map_of_another_size_is_resized_by_nearest():
    halves, quarters = halves_and_quarters()
    large = halves.repeat(2, axis=0).repeat(2, axis=1)
    assert measure_segmentation([halves], [large[None]])["covering"] == 1
    assert measure_segmentation([200 * quarters - 7], [large[None]])["regions"] == 4


@few_pixels
@given(
    arrays(np.int64, (3, 4), elements=st.integers(-2, 4)),
    arrays(np.uint8, (2, 3, 4), elements=st.integers(0, 3)),
)
def test_the_definitions_by_brute_force(regions, truth):
    pixels = [(i, j) for i in range(3) for j in range(4)]
    coverings, rands, variations = [], [], []
    for annotated in truth:
        covered = 0.0
        for number in np.unique(annotated):
            inside = annotated == number
            ious = [
                (inside & (regions == other)).sum() / (inside | (regions == other)).sum()
                for other in np.unique(regions)
            ]
            covered += inside.sum() / 12 * max(ious)
        coverings.append(covered)
        rands.append(
            np.mean(
                [
                    (annotated[one] == annotated[two]) == (regions[one] == regions[two])
                    for one, two in combinations(pixels, 2)
                ]
            )
        )
        # A pixel's surprise at one label given the other, both ways.
        surprise = 0.0
        for pixel in pixels:
            both = ((annotated == annotated[pixel]) & (regions == regions[pixel])).sum()
            for one in (annotated, regions):
                surprise -= np.log2(both / (one == one[pixel]).sum())
        variations.append(surprise / 12)
    assert measure_segmentation([regions], [truth]) == {
        "covering": pytest.approx(np.mean(coverings)),
        "rand": pytest.approx(np.mean(rands)),
        "variation_of_information": pytest.approx(np.mean(variations), abs=1e-12),
        "regions": len(np.unique(regions)),
    }


@pytest.mark.parametrize(
    ("maps", "truths", "match"),
    [
        ([], [], "at least 1, got 0 maps and 0 truths"),
        ([np.zeros((2, 2), int)], [np.zeros((2, 2), int)], r"truth\[None\] for one annotator"),
        ([np.zeros((2, 2), int)], [np.zeros((0, 2, 2), int)], r"truths\[0\] must be integers"),
        ([np.zeros((2, 2))], [np.zeros((1, 2, 2), int)], r"maps\[0\] must be integers .*float64"),
    ],
)
def test_bad_label_maps_are_named(maps, truths, match):
    with pytest.raises(InputError, match=match):
        measure_segmentation(maps, truths)


def test_no_measure_outside_its_range_is_returned(monkeypatch):
    masks = [np.arange(4).reshape(2, 2) > 1]
    for value in (float("nan"), float("inf"), 1.5, -0.1):
        monkeypatch.setattr(measures, "measure_each", lambda *_, v=value, **__: [{"f": v}])
        with pytest.raises(InputError, match="which no maps can have"):
            measure([masks[0].astype(float)], masks, only=["f"])


def test_a_mask_of_one_pixel_has_no_alignment():
    both, single = np.array([[True, False]]), np.array([[True]])
    with_both = measure([both.astype(float)], [both], only=["e"], workers=1)
    maps = [both.astype(float), single.astype(float)]
    assert measure(maps, [both, single], only=["e"], workers=1) == with_both


def test_a_killed_process_is_said(monkeypatch):
    class Broken:
        def submit(self, *_: object) -> None:
            raise BrokenProcessPool

    monkeypatch.setattr(measures, "pool", lambda _: Broken())
    monkeypatch.setattr(measures, "end_pool", lambda _: None)
    masks = [np.eye(4, dtype=bool)] * 3
    with pytest.raises(InputError, match=r"was killed, perhaps for lack of memory; close other"):
        measure([mask.astype(float) for mask in masks], masks, workers=2)
