"""The papers' networks as recipes, whole or with few channels."""

import pytest

from reference_models.networks import backbones
from reference_models.networks.flax import backbones as flax_backbones
from reference_models.networks.options import PAPER_NETWORKS, SystemName
from reference_models.networks.torch import backbones as torch_backbones
from reference_models.papers.schema import Recipe, Scale

# System and loss of each network.
SYSTEMS: dict[str, tuple[SystemName, str]] = {
    "menet": ("menet", "metric"),
    "fcn": ("fully-convolutional", "cas"),
    "deeplab": ("fully-convolutional", "cas"),
    "zoomout": ("zoomout", "af"),
    "anchors": ("anchors", "anchors"),
    "relations": ("relations", "js-mi"),
    "relations-vgg": ("relations", "js-mi"),
}
# Options that reduce the channels, and MEnet's units.
FEW = {
    "menet": {"width": 2, "widest": 4, "blocks": 1},
    "fcn": {"width": 4},
    "deeplab": {"width": 4, "rates": (2, 3)},
    "zoomout": {"width": 2, "hidden": 4},
    "anchors": {"width": 2, "embedding": 8, "selection": "soft"},
    "relations": {"embedding": 4, "critic": (4, 4, 4, 4)},
    "relations-vgg": {"embedding": 4, "critic": (4, 4, 4, 4)},
}


def paper_recipe(name: str, few: bool = False, **options) -> Recipe:
    network = PAPER_NETWORKS[name]
    system, loss = SYSTEMS[name]
    options = {**network.options, **(FEW[name] if few else {}), **options}
    scale = Scale(size=64, steps=1, batch=4, rate=1e-3, backbone=network.backbone, options=options)
    title = f"paper-{name}" + ("-fc" if options.get("region_embedding") == "fc" else "")
    return Recipe(title, system, loss, "a test", small=scale, medium=scale)


def shrink_backbones(monkeypatch: pytest.MonkeyPatch) -> None:
    """Give VGG-16 and ResNet-101 few channels, and ResNet-101 few blocks."""
    for module in (torch_backbones, flax_backbones):
        monkeypatch.setattr(module, "VGG16", ((4, 2), (4, 2), (6, 3), (8, 3), (8, 3)))
        monkeypatch.setattr(module, "VGG16_CONNECTED", 8)
    monkeypatch.setattr(backbones, "RESNET101", ((4, 1), (4, 2), (4, 2), (4, 2)))
