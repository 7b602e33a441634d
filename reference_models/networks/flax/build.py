"""The network of a recipe, in Flax."""

from flax import nnx

from reference_models.networks.flax.anchors import AnchorNetwork
from reference_models.networks.flax.backbones import mobilenet_v2, resnet101, squeezenet1_0, vgg16
from reference_models.networks.flax.fully_convolutional import FullyConvolutional
from reference_models.networks.flax.menet import MEnet, MetricHead
from reference_models.networks.flax.relations import RelationModel
from reference_models.networks.flax.small import Small
from reference_models.networks.flax.system import System
from reference_models.networks.flax.zoomout import Zoomout
from reference_models.networks.options import Backbone
from reference_models.papers.recipes import Recipe, Scale


def build(recipe: Recipe, plan: Scale, rngs: nnx.Rngs) -> System:
    """The recipe's system with new weights; its backbone's are not loaded yet."""
    sizes = {**recipe.options, **plan.options}
    backbone = pretrained(plan.backbone, rngs) if plan.backbone is not None else None
    match recipe.system:
        case "small":
            return Small(recipe.loss, rngs=rngs)
        case "menet":
            return MEnet(recipe.loss, **sizes, rngs=rngs)
        case "metric-head":
            return MetricHead(recipe.loss, backbone, **sizes, rngs=rngs)
        case "fully-convolutional":
            return FullyConvolutional(recipe.loss, backbone, **sizes, rngs=rngs)
        case "zoomout":
            return Zoomout(recipe.loss, backbone, **sizes, rngs=rngs)
        case "anchors":
            return AnchorNetwork(recipe.loss, backbone, **sizes, rngs=rngs)
        case "relations":
            return RelationModel(recipe.loss, backbone, **sizes, rngs=rngs)


def pretrained(backbone: Backbone, rngs: nnx.Rngs) -> nnx.Module:
    taps, stride = backbone.taps, backbone.output_stride
    match backbone.name:
        case "mobilenet_v2":
            return mobilenet_v2(taps, stride, backbone.padding, rngs=rngs)
        case "squeezenet1_0":
            return squeezenet1_0(taps, rngs=rngs)
        case "vgg16":
            return vgg16(taps, stride, rngs=rngs)
        case "resnet101":
            return resnet101(taps, stride, rngs=rngs)
