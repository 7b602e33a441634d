"""Prediction on photographs of all kinds, and the weights that are packed for it."""

import json
import os
import struct
import sys
import time
import zlib
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import save_file

from reference_models import evaluate, paths, predict
from reference_models.data.images import Images
from reference_models.data.masks import Mask
from reference_models.data.photographs import Photograph, read_photograph
from reference_models.data.png import save_png
from reference_models.errors import InputError
from reference_models.files import read_about, read_arrays, write_arrays, write_json
from reference_models.networks.torch.backbones import mobilenet_v2
from reference_models.options import Options
from reference_models.papers.schema import ScaleName
from reference_models.predict import Predict
from reference_models.prediction import outputs
from reference_models.prediction.jobs import Job
from reference_models.prediction.report import Report
from reference_models.prediction.sharing import Batches, Budget, in_threads
from reference_models.reproduction import publish_weights as pack
from reference_models.shards import Shard
from reference_models.training import photographs as network
from reference_models.training.frameworks import new_trainer
from reference_models.training.trained import default_model, load_network, options_of
from saliency_losses import plotting

RNG = np.random.default_rng(0)


@pytest.fixture(autouse=True)
def place(tmp_path, monkeypatch):
    """An empty project: no weights, no results, a backbone of random weights in data/."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(paths, "WEIGHTS", tmp_path / "weights")
    monkeypatch.setattr(paths, "RUNS", tmp_path / "results")
    for folder in ("weights", "results", "data"):
        (tmp_path / folder).mkdir()
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield tmp_path
    torch.set_num_threads(threads)
    torch.use_deterministic_algorithms(False)


def ended(
    recipe: str,
    folder: Path,
    inverted: bool = False,
    size: int = 32,
    scale: ScaleName = "small",
    weighted_f: float = 0.7,
) -> Path:
    """The folder of a finished run, its weights those it began with."""
    options = Options(recipe=recipe, scale=scale, size=size, device="cpu")
    if options.plan.backbone is not None:
        torch.manual_seed(0)
        save_file(
            {
                name: tensor.half()
                for name, tensor in mobilenet_v2((18,)).state_dict().items()
                if tensor.is_floating_point()
            },
            "data/mobilenet_v2.fp16.safetensors",
        )
    folder.mkdir(parents=True)
    about = {**options.as_json(), "inverted": inverted}
    write_arrays(folder / "weights.safetensors", new_trainer(options).weights(), about)
    prior, main = (
        {"mae": 0.1, "max_f": 0.8, "f": 0.75, "weighted_f": value} for value in (0.99, weighted_f)
    )
    measures = {"ecssd": {"prior": prior, "map": main, "semantic distance": prior}}
    report = {
        **options.as_json(),
        "commit": "0123456789abcdef",
        "weights_sha256": "aa",
        "images": {"train": 9},
        "measures": measures,
    }
    write_json(folder / "run.json", report)
    write_json(paths.RUNS / f"{options.name}.json", report)
    return folder


def photo(path: Path, mode: str = "RGB", size: tuple[int, int] = (40, 30), **more) -> Path:
    pixels = RNG.integers(0, 256, (size[1], size[0], 3), dtype=np.uint8)
    Image.fromarray(pixels).convert(mode).save(path, **more)
    return path


def picture(path: str | Path) -> Image.Image:
    with Image.open(path) as image:
        image.load()
    return image


def test_pictures_have_the_photographs_size(place):
    run = ended("menet-ce", place / "run")
    file = photo(place / "one.jpg", size=(50, 30))
    assert predict.predict(Predict((file,), model=str(run))) == []
    names = {path.name for path in Path("predictions").iterdir()}
    assert names == {"one-map.png", "one-cutout.png", "one-overlay.png"}
    saliency = picture("predictions/one-map.png")
    cutout = picture("predictions/one-cutout.png")
    overlay = picture("predictions/one-overlay.png")
    assert (saliency.mode, cutout.mode, overlay.mode) == ("L", "RGBA", "RGB")
    assert saliency.size == cutout.size == overlay.size == (50, 30)
    np.testing.assert_array_equal(cutout.getchannel("A"), saliency)
    np.testing.assert_array_equal(cutout.convert("RGB"), picture(file))


@pytest.mark.parametrize("recipe", ["menet-ce", "zoomout-ce"])
def test_either_framework_predicts_the_same(place, recipe):
    run = ended(recipe, place / "run", size=64)
    file = photo(place / "one.png", size=(64, 64))
    maps = []
    for backend in ("torch", "jax"):
        assert predict.predict(Predict((file,), model=str(run), backend=backend)) == []
        maps.append(np.asarray(picture("predictions/one-map.png")).astype(int))
    assert np.ptp(maps[0]) > 0
    assert np.abs(maps[0] - maps[1]).max() <= 1


def test_a_map_is_inverted_where_validation_said_so(place):
    file = photo(place / "one.png")
    maps = []
    for inverted in (False, True):
        run = ended("menet-ce", place / f"run{inverted}", inverted)
        predict.predict(Predict((file,), model=str(run)))
        maps.append(np.asarray(picture("predictions/one-map.png"), int))
    assert np.abs(maps[0] + maps[1] - 255).max() <= 1


def test_folders_and_photographs_of_one_name(place):
    run = ended("menet-ce", place / "run")
    for folder in ("a", "b"):
        (place / folder).mkdir()
        photo(place / folder / "one.png")
    (place / "a" / "notes.txt").touch()
    predict.predict(Predict((place / "a", place / "b"), model=str(run), out=place / "out"))
    names = {path.name for path in (place / "out").glob("*-map.png")}
    assert names == {"one-map.png", "one-2-map.png"}


@pytest.mark.parametrize("mode", ["L", "LA", "P", "RGBA", "CMYK", "1", "I;16", "F"])
def test_any_mode(place, mode):
    file = place / ("one.tif" if mode in ("CMYK", "F") else "one.png")
    values = RNG.integers(0, 256, (30, 40)).astype(np.uint8)
    if mode == "I;16":
        Image.fromarray(values.astype(np.uint16) * 257).save(file)
    elif mode == "F":
        Image.fromarray((values / 255).astype(np.float32)).save(file)
    else:
        Image.fromarray(values).convert("RGB").convert(mode).save(file)
    image, alpha = read_photograph(file)
    assert (image.mode, image.size) == ("RGB", (40, 30))
    assert (alpha is not None) == (mode in ("LA", "RGBA"))
    if mode in ("L", "LA", "RGBA", "I;16", "F"):
        np.testing.assert_array_equal(np.asarray(image)[..., 0], values)


def test_transparent_pixels_are_white_and_stay_transparent(place):
    pixels = np.zeros((30, 40, 4), np.uint8)
    pixels[:, 20:, 3] = 255
    Image.fromarray(pixels).save("one.png")
    image, alpha = read_photograph(Path("one.png"))
    assert image.getpixel((0, 0)) == (255, 255, 255)
    assert image.getpixel((39, 0)) == (0, 0, 0)
    photograph = Photograph(image, alpha)
    cutout = outputs.cutout(photograph, np.full((30, 40), 200, np.uint8)).getchannel("A")
    assert (cutout.getpixel((0, 0)), cutout.getpixel((39, 0))) == (0, 200)


def test_turned_photographs_are_put_upright(place):
    exif = Image.Exif()
    exif[0x0112] = 6
    photo(place / "one.jpg", size=(50, 30), exif=exif)
    assert read_photograph(place / "one.jpg")[0].size == (30, 50)


def test_a_folder_may_be_its_own_output(place):
    run = ended("menet-ce", place / "run")
    (place / "in").mkdir()
    photo(place / "in/one.png")
    for _ in range(2):
        assert predict.predict(Predict((place / "in",), model=str(run), out=place / "in")) == []
    names = {f"one{end}.png" for end in ("", "-map", "-cutout", "-overlay")}
    assert {path.name for path in (place / "in").iterdir()} == names


def test_a_photograph_and_its_mask_may_be_named_in_different_unicode_forms(place):
    run = str(ended("metric-head-metric", place / "run"))
    for folder in ("photos", "masks"):
        (place / folder).mkdir()
    photo(place / "photos/cafe\u0301.png")
    with Image.open(place / "photos/cafe\u0301.png") as picture:
        size = picture.size
    Image.new("L", size, 255).save(place / "masks/caf\u00e9.png")
    options = Predict((place / "photos",), model=run, mask=place / "masks")
    assert predict.predict(options) == []


def test_a_name_too_long_for_an_output_stops_no_other(place, capsys):
    run = ended("menet-ce", place / "run")
    files = photo(place / f"{'x' * 245}.png"), photo(place / "one.png")
    (fault,) = predict.predict(Predict(files, model=str(run)))
    assert "File name too long; rename the photograph" in fault
    assert Path("predictions/one-map.png").is_file()


def test_what_is_no_image_is_named_and_the_others_are_done(place, capsys):
    run = ended("menet-ce", place / "run")
    (place / "bad.jpg").write_text("no image")
    faults = predict.predict(Predict((place / "bad.jpg", photo(place / "one.png")), model=str(run)))
    assert len(faults) == 1
    assert "bad.jpg cannot be read as an image" in capsys.readouterr().err
    assert Path("predictions/one-map.png").is_file()
    with pytest.raises(InputError, match=r"gone\.png does not exist"):
        predict.predict(Predict((place / "gone.png",), model=str(run)))
    with pytest.raises(InputError, match="holds no image file"):
        predict.predict(Predict((place / "results",), model=str(run)))


def test_models_that_are_not_there(place):
    file = photo(place / "one.png")
    with pytest.raises(InputError, match=r"--model nothing is neither .* bundled models: none"):
        predict.predict(Predict((file,), model="nothing"))
    pack.pack(ended("menet-ce", place / "run"))
    with pytest.raises(InputError, match="bundled models: menet-ce"):
        predict.predict(Predict((file,), model="nothing"))
    with pytest.raises(InputError, match="training has not finished"):
        predict.predict(Predict((file,), model=str(place / "data")))
    save_file({"a": torch.zeros(1)}, "x.safetensors")
    with pytest.raises(InputError, match="does not say which network it holds"):
        predict.predict(Predict((file,), model="x.safetensors"))
    run = ended("regions-cas-4", place / "regions")
    with pytest.raises(InputError, match="divides images into regions"):
        predict.predict(Predict((file,), model=str(run)))


def test_another_schedule_than_the_recipes(place):
    """The network is built as the file says; sizes that no recipe has are an error."""
    run = ended("menet-ce", place / "run", size=64)
    file = run / "weights.safetensors"
    assert options_of(file, "cpu").plan.size == 64
    about = read_about(file)
    about["schedule"]["options"] = {"width": 3}
    write_arrays(file, read_arrays(file), about)
    with pytest.raises(InputError, match="sizes that recipe menet-ce no longer has"):
        options_of(file, "cpu")


def test_promoting_starts_from_the_prior(place, capsys):
    file = photo(place / "one.png")
    run = str(ended("anchors", place / "run", size=64))

    def saliency(**more) -> np.ndarray:
        assert predict.predict(Predict((file,), model=run, **more)) == []
        return np.asarray(picture("predictions/one-map.png"))

    centre = saliency()
    assert "Gaussian at the centre" in capsys.readouterr().out
    prior = np.zeros((30, 40), np.uint8)
    prior[:, :10] = 255
    (place / "priors").mkdir()
    Image.fromarray(prior).save("priors/one.png")
    left = saliency(prior=place / "priors" / "one.png")
    assert (left != centre).any()
    np.testing.assert_array_equal(saliency(prior=place / "priors"), left)
    other = photo(place / "two.png")
    (fault,) = predict.predict(Predict((other,), model=run, prior=place / "priors"))
    assert "no image for" in fault
    pack.pack(ended("menet-ce", place / "default"))
    capsys.readouterr()
    saliency()
    assert "starts from the maps of menet-ce" in capsys.readouterr().out
    with pytest.raises(InputError, match="omit --prior"):
        predict.predict(Predict((file,), model=str(place / "default"), prior=place / "priors"))


@pytest.mark.parametrize("recipe", ["scenes-weighted-fbeta", "anchors", "metric-head-metric"])
def test_a_mask_shows_what_the_loss_sees(place, monkeypatch, recipe):
    run = str(ended(recipe, place / "run", size=64))
    file = photo(place / "one.png", size=(64, 64))
    truth = np.zeros((64, 64), np.uint8)
    truth[10:40, 20:50] = 255
    (place / "masks").mkdir()
    Image.fromarray(truth).save("masks/one.png")
    explained = plotting.explain
    figures = []
    monkeypatch.setattr(
        plotting,
        "explain",
        lambda *args, **more: figures.append(explained(*args, **more)) or figures[-1],
    )
    for mask in (place / "masks", place / "masks" / "one.png"):
        assert predict.predict(Predict((file,), model=run, mask=mask)) == []
    names = {path.name for path in Path("predictions").iterdir()}
    assert names == {f"one-{kind}.png" for kind in ("map", "cutout", "overlay", "explained")}
    image, _, target, weight = (axes.images[0].get_array() for axes in figures[0].axes[:4])
    np.testing.assert_allclose(image, np.asarray(picture(file)) / 255, atol=1e-6)
    np.testing.assert_array_equal(target, truth == 255)
    model = network.Model(load_network(run))
    square = network.square_of(picture(file), 64)
    one = Images.single(square, truth == 255)
    np.testing.assert_allclose(weight, model.network.trainer.pixel_weights(one)[0], rtol=1e-4)


def test_either_framework_explains_the_same(place):
    run = str(ended("scenes-weighted-fbeta", place / "run"))
    weights = []
    for backend in ("torch", "jax"):
        model = network.Model(load_network(run, backend=backend))
        mask = np.arange(32) > 12
        void = np.zeros((32, 32), bool)
        void[:, -4:] = True
        photograph = np.full((32, 32, 3), 100, np.uint8)
        figure = model.explained(
            network.Inputs(photograph, None, None, (32, 32)),
            Mask(np.outer(mask, mask), void, "with void"),
        )
        for axes in figure.axes[1:4]:
            shown = np.ma.getmaskarray(axes.images[0].get_array())
            np.testing.assert_array_equal(shown, void)
        weights.append(np.asarray(figure.axes[3].images[0].get_array()))
    assert np.nanmax(weights[0]) > 0
    np.testing.assert_allclose(*weights, atol=1e-4 * np.nanmax(weights[0]))


def test_masks_that_do_not_fit(place, capsys):
    run = str(ended("menet-ce", place / "run"))
    file, other = photo(place / "one.png"), photo(place / "two.png")
    Image.fromarray(np.ones((30, 40), np.uint8)).save("mask.png")
    Image.fromarray(np.ones((40, 30), np.uint8)).save("turned.png")
    with pytest.raises(InputError, match=r"--mask gone\.png does not exist"):
        predict.predict(Predict((file,), model=run, mask=Path("gone.png")))
    with pytest.raises(InputError, match="is one mask for 2 photographs; pass a folder"):
        predict.predict(Predict((file, other), model=run, mask=Path("mask.png")))
    (fault,) = predict.predict(Predict((file,), model=run, mask=Path("turned.png")))
    assert "one.png is 40 x 30, but turned.png is 30 x 40" in fault
    (place / "masks").mkdir()
    (place / "mask.png").rename(place / "masks" / "one.png")
    (fault,) = predict.predict(Predict((file, other), model=run, mask=Path("masks")))
    assert "--mask masks has no image for" in fault
    assert "the values 0 and 1: 1 is read as the object" in capsys.readouterr().out
    relations = str(ended("relations", place / "relations", size=64))
    with pytest.raises(InputError, match="its loss uses no mask; omit --mask"):
        predict.predict(Predict((file,), model=relations, mask=Path("masks")))


def test_packed_weights_predict_the_same_without_the_data_folder(place):
    run, file = ended("metric-head-ce", place / "run"), photo(place / "one.png")
    predict.predict(Predict((file,), model=str(run), out=place / "single"))
    packed = pack.pack(run)
    assert read_arrays(packed)["logits.weight"].dtype == np.float16
    assert not any(name.startswith("backbone.") for name in read_arrays(packed))
    backbone = read_arrays(place / "weights" / "mobilenet_v2.fp16.safetensors")
    assert {int(name.split(".")[1]) for name in backbone} == set(range(18))
    predict.predict(Predict((file,), model="metric-head-ce", out=place / "half"))
    one, other = (
        np.asarray(picture(place / kind / "one-map.png"), int) for kind in ("single", "half")
    )
    assert np.abs(one - other).max() <= 2


def test_a_bundled_model_and_a_path_of_one_name_are_told_apart(place):
    pack.pack(ended("menet-ce", place / "run"))
    file = photo(place / "one.png")
    ended("menet-ce", place / "menet-ce")
    with pytest.raises(InputError, match=r"both a bundled model and /.*/menet-ce; pass"):
        predict.predict(Predict((file,), model="menet-ce"))
    with pytest.raises(InputError, match="menet-ce is both a bundled model and"):
        evaluate.run(evaluate.Options(Path("./menet-ce"), masks=place))
    assert predict.predict(Predict((file,), model=str(place / "menet-ce"))) == []
    assert predict.predict(Predict((file,))) == []  # The default, which nobody named.


def test_the_readme_of_the_weights(place):
    pack.pack(ended("metric-head-ce", place / "run"))
    pack.write_readme()
    text = Path("weights/README.md").read_text(encoding="utf-8")
    assert "ecssd: MAE 0.100, max F 0.800, F 0.750, weighted F 0.700" in text
    assert "| `metric-head-ce` (default) | DUTS-TR, 9 images |" in text
    assert "`mobilenet_v2.fp16.safetensors` (" in text
    assert "Apache-2.0" in text


def test_the_default_is_the_best_model_there_is(place, capsys):
    file = photo(place / "one.png")
    with pytest.raises(InputError, match="works without a prior map; pass --model"):
        predict.predict(Predict((file,)))
    for recipe, more in (
        ("menet-ce", {"weighted_f": 0.8}),
        ("menet-metric", {"weighted_f": 0.75}),
        ("anchors", {"weighted_f": 0.95}),  # Needs a prior.
        ("regions-cas-4", {"weighted_f": 0.95}),  # Makes no map of what is salient.
    ):
        pack.pack(ended(recipe, place / recipe, size=64, **more))
    assert default_model() == "menet-ce"
    assert predict.predict(Predict((file,))) == []
    pack.pack(ended("fcn-ce-clean", place / "medium", scale="medium", weighted_f=0.72))
    assert default_model() == "fcn-ce-clean"
    pack.write_readme()
    assert Path("weights/README.md").read_text(encoding="utf-8").count("(default)") == 1


def test_a_fine_tuned_backbone_is_packed_with_its_network(place):
    run = ended("metric-head-ce", place / "run", scale="medium")
    packed = read_arrays(pack.pack(run))
    assert any(name.startswith("backbone.") for name in packed)
    assert [file.name for file in (place / "weights").iterdir()] == ["metric-head-ce.safetensors"]
    Path("data/mobilenet_v2.fp16.safetensors").unlink()
    assert predict.predict(Predict((photo(place / "one.png"),))) == []


def test_only_runs_whose_results_are_committed_are_packed(place):
    run = ended("menet-ce", place / "run")
    results = paths.RUNS / "menet-ce-torch-small-0.json"
    known = json.loads(results.read_text())
    write_json(results, known | {"weights_sha256": "bb"})
    with pytest.raises(InputError, match="weights differ"):
        pack.pack(run)
    results.unlink()
    with pytest.raises(InputError, match="only such runs can be published"):
        pack.pack(run)
    (run / "run.json").unlink()
    with pytest.raises(InputError, match=r"run\.json is missing"):
        pack.pack(run)


def test_sizes_are_kept(place):
    large = {"x": np.zeros(pack.MAX_FILE_BYTES // 2 + 1, np.float16)}
    with pytest.raises(InputError, match=r"would take 5\.0 MB"):
        pack.write_checked(place / "weights" / "x.safetensors", large, {})
    some = {"x": np.zeros(pack.MAX_FILE_BYTES // 2 - 1000, np.float16)}
    pack.write_checked(place / "weights" / "x.safetensors", some, {})
    pack.write_checked(place / "weights" / "y.safetensors", some, {})
    pack.write_checked(place / "weights" / "z.safetensors", some, {})
    with pytest.raises(InputError, match=r"all weights would take 20\.0 MB, at most 16"):
        pack.write_checked(place / "weights" / "last.safetensors", some, {})
    with pytest.raises(InputError, match="beyond half precision"):
        pack.half({"x": np.array([1e6], np.float32)})


# What is written ---------------------------------------------------------------------------------


def folder_of(place: Path, *names: str) -> Path:
    for name in names:
        (place / "in" / name).parent.mkdir(parents=True, exist_ok=True)
        photo(place / "in" / name)
    return place / "in"


def written(folder: Path) -> set[str]:
    return {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}


@pytest.mark.parametrize("format", ["png", "webp", "jpg"])
def test_chosen_images_in_chosen_formats(place, format):
    run = str(ended("menet-ce", place / "run"))
    source = folder_of(place, "one.png")
    predict.predict(Predict((source,), model=run, out=place / "all"))
    chosen = "map,overlay" if format == "jpg" else "cutout, map"
    options = Predict((source,), model=run, out=place / "out", write=chosen, format=format)
    assert predict.predict(options) == []
    kinds = [kind.strip() for kind in chosen.split(",")]
    assert written(place / "out") == {f"one-{kind}.{format}" for kind in kinds}
    saliency = np.asarray(picture(place / "out" / f"one-map.{format}").convert("L"), int)
    exact = np.asarray(picture(place / "all/one-map.png"), int)
    assert np.abs(saliency - exact).max() <= (12 if format == "jpg" else 0)
    if format == "webp":
        cutout = picture(place / "out/one-cutout.webp")
        np.testing.assert_array_equal(cutout.getchannel("A"), exact)


def test_outputs_that_cannot_be(place):
    run = str(ended("menet-ce", place / "run"))
    file = photo(place / "one.png")
    for more, message in (
        ({"write": "map,mask"}, r"--write must list some of map, cutout, overlay, .* got 'map,ma"),
        ({"format": "jpg"}, r"--format jpg has no transparency, .* pass --write map,overlay"),
        ({"workers": 0}, "--workers must be at least 1, got 0"),
        ({"batch": 0}, "--batch must be at least 1, got 0"),
        ({"shard": "3/2"}, "--shard must be I/N"),
    ):
        with pytest.raises(InputError, match=message):
            predict.predict(Predict((file,), model=run, **more))
    wide = photo(place / "wide.png", size=(16400, 1))
    (fault,) = predict.predict(Predict((wide,), model=run, format="webp"))
    assert "wide.png is 16400 pixels long, and webp files have at most 16383" in fault


def test_what_is_finished_is_skipped(place, capsys):
    run = str(ended("menet-ce", place / "run"))
    source, out = folder_of(place, "one.png", "two.png"), place / "out"

    def rewritten(**more) -> set[str]:
        before = {path: path.stat().st_ino for path in out.rglob("*.png")}
        assert predict.predict(Predict((source,), **{"model": run, "out": out, **more})) == []
        return {p.name for p, inode in before.items() if p.stat().st_ino != inode}

    def images_of(*stems: str) -> set[str]:
        return {f"{stem}-{kind}.png" for stem in stems for kind in ("map", "cutout", "overlay")}

    rewritten()
    assert rewritten() == rewritten(write="map") == set()
    assert "2 finished before" in capsys.readouterr().out
    (out / "one-map.png").write_bytes((out / "two-map.png").read_bytes())
    assert rewritten() == images_of("one")
    (out / "two-overlay.png").write_bytes((out / "two-overlay.png").read_bytes()[:20])
    assert rewritten() == images_of("two")
    photo(place / "in/two.png")
    assert rewritten() == images_of("two")
    other = str(ended("menet-ce", place / "other", inverted=True))
    assert rewritten(model=other) == images_of("one", "two")
    assert rewritten() == images_of("one", "two")


def test_two_calls_at_once_into_one_folder(place, monkeypatch):
    run = str(ended("menet-ce", place / "run"))
    options = Predict((folder_of(place, "one.png"),), model=run, out=place / "out", write="map")
    save, calls = outputs.save, []

    def meet(image: Image.Image, path: Path, *rest) -> None:
        """Another call does all of the work while this file is half written."""
        save(image, path, *rest)
        content = path.read_bytes()
        path.write_bytes(content[:20])
        calls.append(path)
        if len(calls) == 1:
            assert predict.predict(options) == []
            assert outputs.tag_of(place / "out/one-map.png") is not None
        path.write_bytes(content)

    monkeypatch.setattr(outputs, "save", meet)
    assert predict.predict(options) == []
    assert len(set(calls)) == 2
    assert written(place / "out") == {"one-map.png"}
    assert picture(place / "out/one-map.png").size == (40, 30)


def test_what_killed_calls_left_is_removed_after_an_hour(place):
    run = str(ended("menet-ce", place / "run"))
    source, out = folder_of(place, "a/one.png"), place / "out"
    (out / "a").mkdir(parents=True)
    left = [out / "a" / f".{digit * 16}.partial" for digit in "12"]
    other = out / ".mine.partial"
    for file in (*left, other):
        file.touch()
    for file in (left[0], other):
        os.utime(file, (0, 0))
    assert predict.predict(Predict((source,), model=run, out=out, write="map")) == []
    assert written(out) == {"a/one-map.png", f"a/{left[1].name}", other.name}


def test_sub_folders_are_mirrored_and_outputs_left_out(place):
    run = str(ended("menet-ce", place / "run"))
    source = folder_of(place, "one.png", "a/one.png", "a/b/two.jpg", ".hidden/x.png")
    expected = {"one-map.png", "a/one-map.png", "a/b/two-map.png"}
    for _ in range(2):
        out = source / "maps"
        assert predict.predict(Predict((source,), model=run, out=out, write="map")) == []
        assert written(out) == expected
    before = written(source)
    for _ in range(2):
        predict.predict(Predict((source / "a",), model=run, out=source / "a", write="map"))
        assert written(source) == before | {"a/one-map.png", "a/b/two-map.png"}


def test_photographs_with_names_of_outputs_are_done(place):
    run = str(ended("menet-ce", place / "run"))
    source = folder_of(place, "city.jpg", "city-map.jpg", "sub/old-overlay.png")
    predict.predict(Predict((source,), model=run, out=place / "out", write="map"))
    expected = {"city-map.png", "city-map-map.png", "sub/old-overlay-map.png"}
    assert written(place / "out") == expected


@pytest.mark.parametrize("format", ["png", "webp", "jpg"])
def test_no_call_takes_images_of_another_for_photographs(place, format):
    """Also the numbered ones of photographs of one stem, and those whose photograph is gone."""
    run = str(ended("menet-ce", place / "run"))
    source = folder_of(place, "a.jpg", "a.png", "gone.png")
    options = Predict((source,), model=run, out=source, write="map,overlay", format=format)
    assert predict.predict(options) == []
    before = written(source)
    assert len(before) == 3 + 2 * 3
    assert predict.predict(options) == []
    assert written(source) == before
    (source / "gone.png").unlink()
    assert predict.predict(options) == []
    assert written(source) == before - {"gone.png"}


def test_explanations_are_no_photographs(place):
    run = str(ended("menet-ce", place / "run"))
    source, masks = folder_of(place, "a.jpg", "a.png"), place / "masks"
    masks.mkdir()
    Image.fromarray(255 * np.eye(30, 40, dtype=np.uint8)).save(masks / "a.png")
    options = Predict((source,), model=run, out=source, write="map", mask=masks)
    for _ in range(2):
        assert predict.predict(options) == []
        ends = ("-map", "-explained", "-2-map", "-2-explained")
        assert written(source) == {"a.jpg", "a.png", *(f"a{end}.png" for end in ends)}


def test_a_folder_that_cannot_be_listed_stops_no_photograph(place, monkeypatch, capsys):
    run = str(ended("menet-ce", place / "run"))
    source = folder_of(place, "one.png", "lost+found/x.png", "sub/two.png", "line\nbreak/x.png")
    scandir = os.scandir

    def refuse(path):
        if Path(path).name in ("lost+found", "line\nbreak"):
            raise PermissionError(13, "Permission denied", str(path))
        return scandir(path)

    monkeypatch.setattr(os, "scandir", refuse)
    options = Predict((source,), model=run, out=place / "out", write="map")
    faults = predict.predict(options)
    assert len(faults) == 2
    assert written(place / "out") == {"one-map.png", "sub/two-map.png", "faults.tsv"}
    lines = (place / "out/faults.tsv").read_text().splitlines()
    assert len(lines) == 2
    assert any(
        line.startswith(f"{source}/lost+found\t{source}/lost+found: Permission denied; ")
        for line in lines
    )


def test_a_reason_is_one_line(place):
    report = Report(place, Shard(), 1, "model")
    job = Job(place / "a\nb.jpg", Path("a"))
    with report:
        report.add(job, f"{job.file} ended the process")
    assert report.faults == [f"{place}/a\\nb.jpg ended the process"]
    assert len((place / "faults.tsv").read_text().splitlines()) == 1


def test_linked_folders_are_searched_but_not_those_that_lead_back(place):
    run = str(ended("menet-ce", place / "run"))
    source = folder_of(place, "one.png", "x/two.png", "y/three.png")
    outside = place / "outside"
    outside.mkdir()
    photo(outside / "four.png")
    for link, target in {
        "far": outside,
        "loop": source,
        "up": place,
        "x/to-y": source / "y",
        "y/to-x": source / "x",
        "results": place / "maps",
    }.items():
        (source / link).symlink_to(target)
    for _ in range(2):
        predict.predict(Predict((source,), model=run, out=place / "maps", write="map"))
        names = ("one", "x/two", "y/three", "far/four", "x/to-y/three", "y/to-x/two")
        assert written(place / "maps") == {f"{name}-map.png" for name in names}


def test_photographs_of_types_that_data_sets_refuse_are_read_or_listed(place):
    run = str(ended("menet-ce", place / "run"))
    source = folder_of(place, "one.png")
    photo(source / "still.gif")
    photo(source / "moving.gif", save_all=True, append_images=[Image.new("RGB", (40, 30))])
    (source / "phone.HEIC").write_bytes(bytes(99))
    faults = predict.predict(Predict((source,), model=run, out=place / "maps", write="map"))
    assert written(place / "maps") == {"one-map.png", "still-map.png", "faults.tsv"}
    moving, phone = sorted(faults)
    assert moving.endswith("moving.gif has 2 frames; save one of them")
    assert "phone.HEIC cannot be read as an image: unknown format; save it as" in phone


def test_a_place_for_the_images_is_checked_before_the_work(place, monkeypatch):
    run = str(ended("menet-ce", place / "run"))
    (place / "file").touch()
    monkeypatch.setattr(network, "load_network", None)
    with pytest.raises(InputError, match="file is a file, but a folder is needed"):
        predict.predict(Predict((photo(place / "one.png"),), model=run, out=place / "file"))


def test_a_folder_in_the_place_of_an_image_stops_no_other(place):
    run = str(ended("menet-ce", place / "run"))
    source = folder_of(place, "one.png", "two.png")
    (place / "maps/one-map.png").mkdir(parents=True)
    (fault,) = predict.predict(Predict((source,), model=run, out=place / "maps", write="map"))
    assert "one-map.png is not a regular file; pass another path" in fault
    assert (place / "maps/two-map.png").is_file()


def test_shards_share_the_photographs(place, monkeypatch):
    run = str(ended("menet-ce", place / "run"))
    source = folder_of(place, "a.png", "b.png", "c/b.png", "d.png", "e.png")
    (source / "a.png").write_bytes(b"")
    parts = []
    for number in (1, 2):
        out = place / f"out{number}"
        predict.predict(Predict((source,), model=run, out=out, write="map", shard=f"{number}/2"))
        parts.append(written(out))
    assert parts[0] == {"faults-1-of-2.tsv", "d-map.png", "c/b-map.png"}
    assert parts[1] == {"b-map.png", "e-map.png"}
    monkeypatch.setattr(sys, "argv", ["predict", str(source), "--model", run, "--write", "map"])
    for name, value in {"RANK": 1, "WORLD_SIZE": 2, "LOCAL_RANK": 1, "LOCAL_WORLD_SIZE": 2}.items():
        monkeypatch.setenv(name, str(value))
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "4,7")
    with pytest.raises(SystemExit) as end:
        predict.main()
    assert end.value.code == 0
    assert os.environ["CUDA_VISIBLE_DEVICES"] == "7"
    assert written(place / "predictions") == parts[1]


def test_odd_photographs_beside_each_other(place, capsys):
    """Each is read or listed, whichever thread meets it, and the others are done."""
    run = str(ended("menet-ce", place / "run"))
    source = folder_of(place, "rgb.jpg", "plain.png")
    photo(source / "cmyk.tif", "CMYK")
    photo(source / "palette.png", "P")
    Image.fromarray(np.arange(1200, dtype=np.uint16).reshape(30, 40) * 50).save(source / "16.png")
    exif = Image.Exif()
    exif[0x0112] = 6
    photo(source / "turned.jpg", exif=exif)
    whole = (source / "rgb.jpg").read_bytes()
    (source / "truncated.jpg").write_bytes(whole[: len(whole) // 2])
    header = struct.pack(">2I5B", 20000, 20000, 8, 0, 0, 0, 0)
    bomb = b"\x89PNG\r\n\x1a\n" + struct.pack(">I", 13) + b"IHDR" + header
    bomb += struct.pack(">I", zlib.crc32(b"IHDR" + header)) + struct.pack(">I", 0) + b"IDAT"
    (source / "bomb.png").write_bytes(bomb)
    (source / "tab\tand\nline.png").write_bytes(b"")
    os.mkfifo(source / "pipe.png")
    options = Predict((source,), model=run, out=place / "out", write="map", workers=4, batch=3)
    assert len(predict.predict(options)) == 4
    read = {"rgb", "plain", "cmyk", "palette", "16", "turned"}
    assert written(place / "out") == {f"{stem}-map.png" for stem in read} | {"faults.tsv"}
    assert picture(place / "out/turned-map.png").size == (30, 40)
    text = (place / "out/faults.tsv").read_text(encoding="utf-8")
    lines = dict(line.split("\t") for line in text.splitlines())
    faulty = {Path(name).name for name in lines}
    assert faulty == {"truncated.jpg", "bomb.png", "pipe.png", r"tab\tand\nline.png"}
    assert "is not a file" in lines[str(source / "pipe.png")]
    assert "4 failed, listed in" in capsys.readouterr().out.splitlines()[-1]
    for name in ("truncated.jpg", "bomb.png", "pipe.png", "tab\tand\nline.png"):
        (source / name).unlink()
    assert predict.predict(options) == []
    assert "faults.tsv" not in written(place / "out")


# Parts -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("shape", [(1, 1), (3, 5), (700, 400), (5, 7, 3), (300, 400, 4)])
def test_png_files_hold_what_was_written(place, shape):
    pixels = RNG.integers(0, 256, shape, dtype=np.uint8)
    exif = Image.Exif()
    exif[0x0131] = "a tag"
    save_png(Image.fromarray(pixels), place / "x.png", exif.tobytes())
    image = picture("x.png")
    np.testing.assert_array_equal(np.asarray(image), pixels)
    assert image.getexif()[0x0131] == "a tag"
    with Image.open("x.png") as read:
        read.verify()


def inputs(value: int) -> network.Inputs:
    return network.Inputs(np.full((2, 2, 3), value, np.uint8), None, None, (2, 2))


def test_batches_return_to_each_thread_its_own_map():
    sizes = []

    def maps(batch: list[network.Inputs]) -> np.ndarray:
        sizes.append(len(batch))
        return np.stack([each.square[..., 0] / 255 for each in batch])

    batches = Batches(maps, 4)
    work = ((i, batches) for i in range(100))
    results = dict(in_threads(lambda item: (item[0], item[1].map(inputs(item[0]))), work, 9))
    assert {i: float(m[0, 0]) for i, m in results.items()} == {i: i / 255 for i in range(100)}
    assert set(sizes) == {4}


def test_a_thread_per_core_computes_single_photographs():
    running, most = [], []

    def maps(batch: list[network.Inputs]) -> np.ndarray:
        running.append(1)
        time.sleep(0.001)
        most.append(len(running))
        running.pop()
        return np.zeros((1, 2, 2))

    batches = Batches(maps, 1, cores=2)
    list(in_threads(lambda item: batches.map(inputs(item)), range(50), 6))
    assert max(most) == 2


def test_an_error_in_a_batch_reaches_those_who_wait():
    batches = Batches(lambda batch: np.stack([]), 2)
    with pytest.raises(ValueError, match="at least one array"):
        batches.map(inputs(0))


def test_a_budget_is_kept_and_never_blocks_for_good():
    budget, most = Budget(10), []

    def work(pixels: int) -> None:
        with budget.share() as take:
            take(pixels)
            most.append(budget.used)

    list(in_threads(work, [3, 4, 5, 99, 6, 1] * 20, 8))
    assert len(most) == 120
    assert max(most) <= 10
    assert budget.used == 0


def test_threads_begin_nothing_after_an_error():
    begun = []

    def work(item: int) -> None:
        begun.append(item)
        if item == 5:
            raise OSError(28, "No space left on device")

    with pytest.raises(OSError, match="No space left"):
        list(in_threads(work, range(1000), 2))
    assert len(begun) < 20
