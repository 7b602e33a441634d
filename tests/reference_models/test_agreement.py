"""The command that trains both frameworks from the same weights."""

import json
import sys
from pathlib import Path

import pytest

from reference_models.options import Options
from reference_models.papers.recipes import RECIPES
from reference_models.reproduction import agreement, first_steps
from reference_models.reproduction.agreement import networks
from reference_models.reproduction.first_steps import gap
from reference_models.training.run import Shared

pytestmark = pytest.mark.usefixtures("torch_settings")


def test_every_network_with_every_loss_has_a_recipe():
    asked = {(r.system, r.loss) for r in RECIPES.values() if r.system != "small"}
    assert {(RECIPES[name].system, RECIPES[name].loss) for name in networks()} == asked
    assert {"anchors", "anchors-fc", "menet-ce-plain", "regions-cas-4"} <= {*networks()}
    assert not {"fcn-ce-swapped", "relations"} & {*networks()}


@pytest.mark.slow
def test_both_frameworks_take_the_same_first_steps(tmp_path: Path):
    options = Options(
        recipe="menet-metric",
        scale="small",
        data="scenes",
        size=64,
        batch=8,
        train_images=16,
        test_images=4,
    )
    one = agreement.compare(options, 5, {"torch": Shared(), "jax": Shared()})
    assert [len(one["losses"][backend]) for backend in ("torch", "jax")] == [5, 5]
    assert one["losses"]["torch"][0] != one["losses"]["torch"][4]
    assert gap(one, 1) < 1e-5
    assert gap(one) < 1e-2
    (tmp_path / "menet-metric.json").write_text(json.dumps(one))
    assert first_steps.read(tmp_path) == [one]


def test_what_has_its_file_is_passed_over(tmp_path: Path, monkeypatch, capsys):
    def compared(options, *_):
        return {"recipe": options.recipe, "losses": {"torch": [1.0, 2.0], "jax": [1.0, 2.3]}}

    monkeypatch.setattr(agreement, "compare", compared)
    words = ["agreement", "--only", "menet-*", "--results", str(tmp_path)]
    monkeypatch.setattr(sys, "argv", words)
    (tmp_path / "menet-ce.json").write_text("{}")
    agreement.main()
    assert "menet-metric: losses differ by up to 2.0e-01 of their mean" in capsys.readouterr().out
    assert len(list(tmp_path.iterdir())) == sum(name.startswith("menet-") for name in networks())
    assert (tmp_path / "menet-ce.json").read_text() == "{}"
    monkeypatch.setattr(sys, "argv", ["agreement", "--only", "none-such"])
    with pytest.raises(SystemExit, match="none-such matches no recipe; choose from zoomout-ce"):
        agreement.main()
