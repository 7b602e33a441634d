"""Training of any system in JAX: one jitted step, its batch shared by all devices."""

import hashlib
import os
from collections import OrderedDict
from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import nnx
from jax import Array
from jax.experimental import multihost_utils
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from reference_models.data.images import Images
from reference_models.errors import InputError
from reference_models.files import Arrays, describe_mismatch
from reference_models.machine import progress
from reference_models.networks.flax.backbones import Depthwise, load_backbone
from reference_models.networks.flax.build import build
from reference_models.networks.flax.system import Batch, System
from reference_models.networks.flax.weights import from_torch, to_torch
from reference_models.options import Options
from reference_models.papers.schema import Scale
from reference_models.training.trainer import Draw, LossView, one_cycle

State = nnx.State[Any, Any]
Features = dict[str, list[Array]]
"""Taps of whole sets under frozen backbones, by what they depend on."""


class Held(NamedTuple):
    """The training set, on every device."""

    images: Array
    """uint8 `(N, S, S, 3)`."""
    labels: Array
    """`(N, S, S)`."""
    priors: Array
    """uint8 `(N, S, S)`, or one for all, `(1, S, S)`."""
    taps: list[Array]
    """Of a frozen backbone: its maps of every image, then of every mirrored image."""


class Drawn(NamedTuple):
    """`reference_models.training.loop.Draw` on the devices, shared by them but for the seed."""

    indices: Array
    mirrored: Array
    corners: Array
    seed: Array


class Parts(NamedTuple):
    """The variables of a system."""

    learnt: State
    running: State
    """What a step leaves behind: the running statistics of batch normalisation."""
    fixed: State
    """Stored statistics, and a frozen backbone."""


class FlaxTrainer:
    """`reference_models.training.loop.Trainer` for any system."""

    def __init__(
        self, options: Options, features: Features | None = None, imagenet: bool = True
    ) -> None:
        devices = begin(options.device)
        self.device = devices[0].platform
        self.is_main_process = jax.process_index() == 0
        # A training step is shared by all devices; maps are made on one.
        self.local_device = next(one for one in devices if one.process_index == jax.process_index())
        mesh = Mesh(np.array(devices), ("batch",))
        self.everywhere = NamedSharding(mesh, PartitionSpec())
        self.shared = NamedSharding(mesh, PartitionSpec("batch"))
        self.plan = plan = options.plan
        self.seed, self.regions = options.seed, options.chosen_recipe.regions
        self.frozen = plan.backbone is not None and plan.backbone_rate == 0
        # A frozen backbone is left out of the weights where everybody has it.
        self.backbone_is_shared = self.frozen and options.backbone_weights is None
        self.inference_batch = 64 if self.device == "gpu" else 8

        with jax.default_device(self.local_device):
            system = build(options.chosen_recipe.network(plan), nnx.Rngs(options.seed))
            if plan.backbone is not None and imagenet:
                load_backbone(system.backbone, options.backbone_file)
            graph, *parts = nnx.split(system, partial(is_learnt, self.frozen), nnx.BatchStat, ...)
            optimizer = adam(plan)
            moments = optimizer.init(parts[0])
        self.parts = self.spread(Parts(*parts), self.everywhere)
        self.moments = self.spread(moments, self.everywhere)
        self.parameters = sum(leaf.size for leaf in jax.tree.leaves(parts[0]))
        self.features = {} if features is None else features
        # bfloat16 convolutions where a GPU is, float32 elsewhere. The systems widen what they put
        # out before a loss or a saturating function sees it.
        dtype = jnp.bfloat16 if self.device == "gpu" else jnp.float32
        self.precision = dtype.__name__
        network = partial(merged, graph, dtype)
        self._step = jax.jit(
            partial(train_step, network, optimizer, plan.crop),
            donate_argnums=(0, 1, 2),
            out_shardings=self.everywhere,
        )
        self._taps = jax.jit(partial(taps_of, network))
        self._maps = jax.jit(partial(maps_of, network, self.regions))
        self._output = jax.jit(lambda *given: output_of(network, *given)[1:])
        self._loss = jax.jit(lambda parts, *given: network(parts).loss(*given))

    def set_training_images(self, images: Images) -> None:
        batch, devices = min(self.plan.batch, len(images)), self.shared.num_devices
        if batch % devices:
            raise InputError(
                f"a batch of {batch} cannot be shared evenly by {devices} devices; give --batch"
            )
        # One prior for all images stays one in memory.
        same = images.priors.strides[0] == 0
        priors = np.array(images.priors[:1] if same else images.priors)
        taps = []
        if self.frozen:
            digest = hashlib.sha256(np.ascontiguousarray(images.images).data).hexdigest()
            key = f"{self.plan.backbone} {digest}"
            if key not in self.features:
                self.features.clear()  # One set at a time: they take gigabytes.
                self.features[key] = self.spread(self.all_taps(images.images), self.everywhere)
            taps = self.features[key]
        self.held = Held(
            *self.spread((images.images, images.labels, priors), self.everywhere), taps
        )

    def all_taps(self, images: np.ndarray) -> list[np.ndarray]:
        """The backbone's maps of every image, then of every mirrored image, in half precision."""
        parts, parted = [], range(0, len(images), self.inference_batch)
        for step in (1, -1):
            for begin in progress(parted, desc="features", disable=not self.is_main_process):
                some = images[begin : begin + self.inference_batch, :, ::step]
                taps = self._taps(self.local, self.filled(some))
                parts.append([np.asarray(tap[: len(some)]) for tap in taps])
        return [np.concatenate(taps) for taps in zip(*parts, strict=True)]

    def step(self, draw: Draw) -> float:
        drawn = self.spread(
            (draw.indices.astype(np.int32), draw.mirrored, draw.corners.astype(np.int32)),
            self.shared,
        )
        seed = self.spread(np.uint32(draw.seed), self.everywhere)
        *parts, self.moments, loss = self._step(
            self.parts.learnt,
            self.parts.running,
            self.moments,
            self.parts.fixed,
            self.held,
            Drawn(*drawn, seed),
        )
        self.parts = Parts(*parts, self.parts.fixed)
        return float(loss)

    def maps(self, images: Images) -> dict[str, np.ndarray]:
        maps = self._maps(self.local, *self.whole(images))
        cut = {name: np.asarray(values)[: len(images)] for name, values in maps.items()}
        return cut if self.regions > 2 else {n: np.clip(v, 0, 1) for n, v in cut.items()}

    def pixel_weights(self, images: Images) -> np.ndarray:
        loss, output, labels, _ = self.loss_view(images)
        gradient = np.asarray(jax.grad(loss)(output, labels))
        return np.abs(gradient).sum(axis=-1)[: len(images)]

    def loss_view(self, image: Images) -> LossView:
        parts = self.local
        output, batch = self._output(parts, *self.whole(image))

        def loss(output: Array, labels: Array) -> Array:
            return self._loss(parts, output, batch._replace(labels=labels))

        return LossView(loss, output, batch.labels, batch.images)

    def whole(self, images: Images) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.uint32]:
        """Images, labels and priors, and a seed."""
        arrays = (self.filled(x) for x in (images.images, images.labels, images.priors))
        return (*arrays, np.uint32(self.seed))

    @staticmethod
    def filled(x: np.ndarray) -> np.ndarray:
        """Repeated up to a power of two, so that not every number of images is compiled for."""
        missing = (1 << (len(x) - 1).bit_length()) - len(x)
        return np.concatenate([x, np.repeat(x[:1], missing, axis=0)])

    @property
    def local(self) -> Parts:
        """The variables on this process's first device."""
        return jax.tree.map(
            lambda x: next(s.data for s in x.addressable_shards if s.device == self.local_device),
            self.parts,
        )

    def weights(self) -> Arrays:
        return {
            name: array
            for part in self.parts
            for name, array in to_torch(part).items()
            if not (self.backbone_is_shared and name.startswith("backbone."))
        }

    def load(self, weights: Arrays) -> None:
        state = nnx.merge_state(*self.parts)
        there = to_torch(state).items() if self.backbone_is_shared else ()
        backbone = {name: array for name, array in there if name.startswith("backbone.")}
        with jax.default_device(self.local_device):
            filled = from_torch(state, backbone | weights)
        parts = nnx.split_state(filled, partial(is_learnt, self.frozen), nnx.BatchStat, ...)
        self.parts = self.spread(Parts(*parts), self.everywhere)

    def state(self) -> Arrays:
        weights = {f"weights/{name}": array for name, array in self.weights().items()}
        moments = flatten(self.moments)
        return weights | {f"optimizer/{name}": array for name, array in moments.items()}

    def restore(self, state: Arrays) -> None:
        kind = "weights/"
        self.load({n.removeprefix(kind): a for n, a in state.items() if n.startswith(kind)})
        wanted = {f"optimizer/{name}": array for name, array in flatten(self.moments).items()}
        given = {name: array for name, array in state.items() if name[:10] == "optimizer/"}
        if fault := describe_mismatch(given, wanted):
            raise InputError(f"of the optimizer's arrays are {fault}")
        moments = [given[name] for name in wanted]
        tree = jax.tree.unflatten(jax.tree.structure(self.moments), moments)
        self.moments = self.spread(tree, self.everywhere)

    def any_process(self, flag: bool) -> bool:
        if jax.process_count() == 1:
            return flag
        return bool(multihost_utils.process_allgather(np.array(flag)).any())

    @staticmethod
    def spread(tree: Any, sharding: NamedSharding) -> Any:
        """Arrays that every process has alike, on all devices or shared by them."""

        def put(x: Any) -> Array:
            x = np.asarray(x)
            return jax.make_array_from_callback(x.shape, sharding, lambda place: x[place])

        return jax.tree.map(put, tree)


# What is compiled --------------------------------------------------------------------------------

Network = Callable[[Parts], System]


def is_learnt(frozen: bool, path: tuple[Any, ...], variable: Any) -> bool:
    return isinstance(variable, nnx.Param) and not (frozen and path[0] == "backbone")


def merged(graph: Any, dtype: Any, parts: Parts) -> System:
    """The system of these variables, its convolutions' in the type to compute with."""
    system = nnx.merge(graph, *parts, copy=True)
    for _, module in nnx.iter_modules(system):
        if isinstance(module, (nnx.Conv, nnx.Linear, Depthwise)):
            nnx.update(module, jax.tree.map(lambda x: x.astype(dtype), nnx.state(module)))
    return system


def train_step(
    network: Network,
    optimizer: optax.GradientTransformation,
    crop: int | None,
    learnt: State,
    running: State,
    moments: Any,
    fixed: State,
    held: Held,
    drawn: Drawn,
) -> tuple[State, State, Any, Array]:
    """The variables after one step, the optimizer's moments, and the loss before."""
    priors = jnp.minimum(drawn.indices, len(held.priors) - 1)
    batch = Batch(
        images=pixels(chosen(held.images, drawn.indices, drawn, crop)),
        labels=chosen(held.labels, drawn.indices, drawn, crop).astype(jnp.int32),
        prior=shares(chosen(held.priors, priors, drawn, crop)),
        key=jax.random.key(drawn.seed),
    )
    rows = drawn.indices + len(held.images) * drawn.mirrored
    taps = [tap[rows].astype(jnp.float32) for tap in held.taps]

    def objective(learnt: State) -> tuple[Array, State]:
        system = network(Parts(learnt, running, fixed))
        system.train()
        output = system(taps or system.backbone(batch.images))
        return system.loss(output, batch), nnx.state(system, nnx.BatchStat)

    (loss, running), gradient = jax.value_and_grad(objective, has_aux=True)(learnt)
    updates, moments = optimizer.update(gradient, moments, learnt)
    return optax.apply_updates(learnt, updates), running, moments, loss


def chosen(held: Array, rows: Array, drawn: Drawn, crop: int | None) -> Array:
    """The step's images, mirrored along the second axis of space, cropped."""
    x = held[rows]
    x = jnp.where(drawn.mirrored.reshape(-1, *[1] * (x.ndim - 1)), jnp.flip(x, axis=2), x)
    if crop is None:
        return x

    def cut(one: Array, corner: Array) -> Array:
        rest = one.shape[2:]
        return jax.lax.dynamic_slice(one, (*corner, *[0] * len(rest)), (crop, crop, *rest))

    return jax.vmap(cut)(x, drawn.corners)


def pixels(images: Array) -> Array:
    return images.astype(jnp.float32) / 255


def shares(priors: Array) -> Array:
    """8 bits to [0, 1]. Compiled, a division by 255 is a product, and rounds priors across the
    thresholds of pairs."""
    return jnp.asarray(np.arange(256, dtype=np.float32) / np.float32(255))[priors]


def taps_of(network: Network, parts: Parts, images: Array) -> list[Array]:
    return [tap.astype(jnp.float16) for tap in network(parts).backbone(pixels(images))]


def output_of(
    network: Network, parts: Parts, images: Array, labels: Array, prior: Array, seed: Array
) -> tuple[System, Array, Batch]:
    system = network(parts)
    system.eval()
    batch = Batch(pixels(images), labels.astype(jnp.int32), shares(prior), jax.random.key(seed))
    return system, system(system.backbone(batch.images)), batch


def maps_of(network: Network, regions: int, *given: Any) -> dict[str, Array]:
    system, output, batch = output_of(network, *given)
    if regions > 2:
        return {"regions": system.segmentation(output, batch)}
    # The main map is the first, and JAX sorts what a plain dict holds.
    return OrderedDict(system.maps(output, batch))


# What is set up ----------------------------------------------------------------------------------


def adam(plan: Scale) -> optax.GradientTransformation:
    """Adam on the one-cycle schedule; a backbone that is tuned gets its share of the rate."""
    rates = np.float32([one_cycle(step, plan.steps, plan.rate) for step in range(plan.steps)])

    def at(share: float) -> optax.GradientTransformation:
        return optax.adam(lambda step: jnp.asarray(share * rates)[step])

    def kinds(learnt: State) -> State:
        return jax.tree_util.tree_map_with_path(
            lambda path, _: "backbone" if path[0].key == "backbone" else "own", learnt
        )

    if plan.backbone_rate == 0:
        return at(1.0)
    return optax.partition({"own": at(1.0), "backbone": at(plan.backbone_rate)}, kinds)


def flatten(tree: Any) -> Arrays:
    """The leaves by the names on the path to them."""
    named = jax.tree_util.tree_flatten_with_path(tree)[0]
    return {
        jax.tree_util.keystr(path, simple=True, separator="."): np.array(leaf)
        for path, leaf in named
    }


def begin(device: str) -> list[jax.Device]:
    """All devices of that kind, of every process; first joins the processes of which
    JAX_NUM_PROCESSES, JAX_PROCESS_ID and JAX_COORDINATOR_ADDRESS (host:port of the first) speak."""
    processes = int(os.environ.get("JAX_NUM_PROCESSES", "1"))
    if processes > 1 and not jax.distributed.is_initialized():
        needed = ("JAX_COORDINATOR_ADDRESS", "JAX_PROCESS_ID")
        if missing := [name for name in needed if name not in os.environ]:
            raise InputError(f"JAX_NUM_PROCESSES={processes} needs {' and '.join(missing)} too")
        address, rank = (os.environ[name] for name in needed)
        # Otherwise JAX takes SIGTERM for itself, and no run is saved.
        jax.config.update("jax_enable_preemption_service", False)
        # The first process measures alone. One that ends before waits for it, and if not for long
        # enough, aborts both.
        jax.distributed.initialize(address, processes, int(rank), shutdown_timeout_seconds=7200)
    try:
        return jax.devices(None if device == "auto" else device)
    except RuntimeError as error:
        raise InputError(f"--device {device}: {error}") from None
