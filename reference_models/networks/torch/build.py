"""The network of a recipe, in PyTorch."""

from torch import nn

from reference_models.networks.options import Backbone
from reference_models.networks.torch.anchors import AnchorNetwork
from reference_models.networks.torch.backbones import mobilenet_v2, resnet101, squeezenet1_0, vgg16
from reference_models.networks.torch.fully_convolutional import FullyConvolutional
from reference_models.networks.torch.menet import MEnet, MetricHead
from reference_models.networks.torch.relations import RelationModel
from reference_models.networks.torch.small import Small
from reference_models.networks.torch.zoomout import Zoomout
from reference_models.papers.recipes import Recipe, Scale


def build(recipe: Recipe, plan: Scale) -> nn.Module:
    """The recipe's system with new weights; its backbone's are not loaded yet."""
    sizes = {**recipe.options, **plan.options}
    backbone = pretrained(plan.backbone) if plan.backbone is not None else None
    match recipe.system:
        case "small":
            return Small(recipe.loss)
        case "menet":
            return MEnet(recipe.loss, **sizes)
        case "metric-head":
            return MetricHead(recipe.loss, backbone, **sizes)
        case "fully-convolutional":
            return FullyConvolutional(recipe.loss, backbone, **sizes)
        case "zoomout":
            return Zoomout(recipe.loss, backbone, **sizes)
        case "anchors":
            return AnchorNetwork(recipe.loss, backbone, **sizes)
        case "relations":
            return RelationModel(recipe.loss, backbone, **sizes)


def pretrained(backbone: Backbone) -> nn.Module:
    match backbone.name:
        case "mobilenet_v2":
            return mobilenet_v2(backbone.taps, backbone.output_stride, backbone.padding)
        case "squeezenet1_0":
            return squeezenet1_0(backbone.taps)
        case "vgg16":
            return vgg16(backbone.taps, backbone.output_stride)
        case "resnet101":
            return resnet101(backbone.taps, backbone.output_stride)
