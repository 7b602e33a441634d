"""Networks from their specifications, in Flax."""

from typing import Any

from flax import nnx

from reference_models.networks import options
from reference_models.networks.flax.anchors import AnchorNetwork
from reference_models.networks.flax.backbones import Backbone, mobilenet_v2, resnet101, vgg16
from reference_models.networks.flax.fully_convolutional import FullyConvolutional
from reference_models.networks.flax.menet import MEnet, MetricHead, PaperMEnet
from reference_models.networks.flax.relations import RelationModel
from reference_models.networks.flax.small import Small
from reference_models.networks.flax.system import System
from reference_models.networks.flax.zoomout import Zoomout


def build(spec: options.NetworkSpec, rngs: nnx.Rngs) -> System:
    """A network with new weights; those of its backbone are not loaded yet."""
    loss: Any = spec.loss  # The specification has checked it.
    backbone: Any = None
    if spec.backbone is not None:
        backbone = pretrained(spec.backbone, spec.options.normalises_backbone, rngs)
    match spec.options:
        case options.SmallOptions():
            return Small(loss, rngs=rngs)
        case options.MEnetOptions() as chosen:
            network = PaperMEnet if chosen.layout == "paper" else MEnet
            return network(loss, chosen, rngs=rngs)
        case options.MetricHeadOptions() as chosen:
            return MetricHead(loss, backbone, chosen, rngs=rngs)
        case options.FullyConvolutionalOptions() as chosen:
            return FullyConvolutional(loss, backbone, chosen, rngs=rngs)
        case options.ZoomoutOptions() as chosen:
            return Zoomout(loss, backbone, chosen, rngs=rngs)
        case options.AnchorOptions() as chosen:
            return AnchorNetwork(loss, backbone, chosen, rngs=rngs)
        case options.RelationOptions() as chosen:
            return RelationModel(loss, backbone, chosen, rngs=rngs)
    raise TypeError(f"no network has the options {spec.options}")


def pretrained(backbone: options.Backbone, normalise_batch: bool, rngs: nnx.Rngs) -> Backbone:
    """The backbone with random weights; `load_backbone` loads the pretrained ones."""
    taps, stride = backbone.taps, backbone.output_stride
    match backbone.name:
        case "mobilenet_v2":
            network = mobilenet_v2(taps, stride, backbone.padding, rngs=rngs)
        case "vgg16":
            network = vgg16(taps, stride, rngs=rngs)
        case "resnet101":
            network = resnet101(taps, stride, normalise_batch, rngs=rngs)
    network.standardize = backbone.standardize
    return network
