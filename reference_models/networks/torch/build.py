"""Networks from their specifications, in PyTorch."""

from typing import Any

from reference_models.networks import options
from reference_models.networks.torch.anchors import AnchorNetwork
from reference_models.networks.torch.backbones import Backbone, mobilenet_v2, resnet101, vgg16
from reference_models.networks.torch.fully_convolutional import FullyConvolutional
from reference_models.networks.torch.menet import MEnet, MetricHead, PaperMEnet
from reference_models.networks.torch.relations import RelationModel
from reference_models.networks.torch.small import Small
from reference_models.networks.torch.system import System
from reference_models.networks.torch.zoomout import Zoomout


def build(spec: options.NetworkSpec) -> System:
    """A network with new weights; those of its backbone are not loaded yet."""
    loss: Any = spec.loss  # The specification has checked it.
    backbone: Any = None
    if spec.backbone is not None:
        backbone = pretrained(spec.backbone, spec.options.normalises_backbone)
    match spec.options:
        case options.SmallOptions():
            return Small(loss)
        case options.MEnetOptions() as chosen:
            network = PaperMEnet if chosen.layout == "paper" else MEnet
            return network(loss, chosen)
        case options.MetricHeadOptions() as chosen:
            return MetricHead(loss, backbone, chosen)
        case options.FullyConvolutionalOptions() as chosen:
            return FullyConvolutional(loss, backbone, chosen)
        case options.ZoomoutOptions() as chosen:
            return Zoomout(loss, backbone, chosen)
        case options.AnchorOptions() as chosen:
            return AnchorNetwork(loss, backbone, chosen)
        case options.RelationOptions() as chosen:
            return RelationModel(loss, backbone, chosen)
    raise TypeError(f"no network has the options {spec.options}")


def pretrained(backbone: options.Backbone, normalise_batch: bool = False) -> Backbone:
    """The backbone with random weights; `load_backbone` loads the pretrained ones."""
    taps, stride = backbone.taps, backbone.output_stride
    match backbone.name:
        case "mobilenet_v2":
            network = mobilenet_v2(taps, stride, backbone.padding)
        case "vgg16":
            network = vgg16(taps, stride)
        case "resnet101":
            network = resnet101(taps, stride, normalise_batch)
    network.standardize = backbone.standardize
    return network
