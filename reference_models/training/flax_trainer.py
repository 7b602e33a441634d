"""JAX trainer: one jitted training step, whose batch is split over all devices."""

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

from reference_models.data.images import VOID, Images, Streamed
from reference_models.errors import InputError
from reference_models.files import Arrays, describe_mismatch
from reference_models.machine import progress
from reference_models.networks.flax.backbones import Backbone, Depthwise, load_backbone
from reference_models.networks.flax.build import build
from reference_models.networks.flax.system import Batch, System, nearest_resize, resize
from reference_models.networks.flax.weights import from_torch, to_torch
from reference_models.options import Options
from reference_models.papers.schema import SGD, Scale
from reference_models.training.augmentation import Draw, Recoloring
from reference_models.training.processes import JOIN_MINUTES, Watch, waiting, with_others
from reference_models.training.trainer import LossView, holds_backbone, learning_rate

State = nnx.State[Any, Any]
Features = dict[str, list[Array]]
"""Frozen-backbone features of whole training sets, by backbone and digest of the images."""


class StoredImages(NamedTuple):
    """The training set, copied to every device."""

    images: Array
    """uint8 `(N, S, S, 3)`."""
    labels: Array
    """`(N, S, S)`."""
    priors: Array
    """uint8 `(N, S, S)`, or `(1, S, S)` if all images share one prior map."""
    taps: list[Array]
    """Features of a frozen backbone: of all images, then of all mirrored images."""
    counted: Array | None
    """bool `(N, S, S)`, False on void pixels; None if there are none."""


class DeviceDraw(NamedTuple):
    """A `Draw` on the devices: each holds its share of the images, and the same seed."""

    indices: Array
    mirrored: Array
    corners: Array
    seed: Array
    recoloring: Recoloring | None = None


class Parts(NamedTuple):
    """The variables of a network."""

    learnt: State
    running: State
    """Running statistics of batch normalisation, which each step updates."""
    fixed: State
    """Variables that do not change in training: stored statistics and a frozen backbone."""


class FlaxTrainer:
    """`reference_models.training.trainer.Trainer` in JAX (Flax), for every network."""

    def __init__(
        self, options: Options, features: Features | None = None, imagenet: bool = True
    ) -> None:
        devices = begin(options.device, options.answer_seconds)
        self.device = devices[0].platform
        self.is_main_process = jax.process_index() == 0
        # All devices share a training step; one computes the maps.
        self.local_device = next(d for d in devices if d.process_index == jax.process_index())
        mesh = Mesh(np.array(devices), ("batch",))
        self.everywhere = NamedSharding(mesh, PartitionSpec())
        self.shared = NamedSharding(mesh, PartitionSpec("batch"))
        self.plan = plan = options.plan
        self.seed, self.regions = options.seed, options.chosen_recipe.regions
        self.frozen = plan.is_frozen
        self.caches_features = self.frozen and plan.augmentation is None
        # A frozen bundled backbone is not stored with the weights.
        self.backbone_is_shared = self.frozen and options.backbone_weights is None
        self.inference_batch = 64 if self.device == "gpu" else 8

        with jax.default_device(self.local_device):
            system = build(options.chosen_recipe.network(plan), nnx.Rngs(options.seed))
            if plan.backbone is not None and imagenet:
                assert isinstance(system.backbone, Backbone)
                load_backbone(system.backbone, options.backbone_file)
            graph, *parts = nnx.split(system, partial(is_learnt, self.frozen), nnx.BatchStat, ...)
            moments = optimizer_of(plan).init(parts[0])
        self.parts = self.put(Parts(*parts), self.everywhere)
        self.moments = self.put(moments, self.everywhere)
        self.parameters = sum(leaf.size for leaf in jax.tree.leaves(parts[0]))
        self.features = {} if features is None else features
        # Convolutions use bfloat16 on a GPU and float32 elsewhere. Networks convert their output to
        # float32 before any loss or saturating function.
        dtype = jnp.bfloat16 if self.device == "gpu" else jnp.float32
        self.precision = dtype.__name__
        network = partial(merged, graph, dtype)
        self._step = jax.jit(
            partial(train_step, network, plan),
            static_argnames="hold",
            donate_argnums=(0, 1, 2),
            out_shardings=self.everywhere,
        )
        self._taps = jax.jit(partial(taps_of, network))
        self._maps = jax.jit(partial(maps_of, network, self.regions))
        self._descriptors = jax.jit(partial(descriptors_of, network))
        self._output = jax.jit(lambda *inputs: output_of(network, *inputs)[1:])
        self._loss = jax.jit(lambda parts, *inputs: network(parts).loss(*inputs))

    def set_training_images(self, images: Images | Streamed) -> None:
        batch, devices = min(self.plan.batch, len(images)), self.shared.num_devices
        if batch % devices:
            raise InputError(
                f"a batch of {batch} cannot be split evenly over {devices} devices; pass --batch "
                "with a multiple of them"
            )
        self.has_void = images.has_void
        if isinstance(images, Streamed):
            self.caches_features = False
        else:
            self.stored = self.store(images)

    def store(self, images: Images) -> StoredImages:
        """The training set, or the images of a step, on the devices."""
        # A prior map shared by all images is stored once.
        is_shared = images.priors.strides[0] == 0
        priors = np.array(images.priors[:1] if is_shared else images.priors)
        taps = []
        if self.caches_features:
            digest = hashlib.sha256(np.ascontiguousarray(images.images).data).hexdigest()
            key = f"{self.plan.backbone} {digest}"
            if key not in self.features:
                self.features.clear()  # One training set at a time: features take gigabytes.
                self.features[key] = self.put(self.all_taps(images.images), self.everywhere)
            taps = self.features[key]
        labels, counted = truth(images, self.has_void)
        arrays = (images.images, labels, priors, counted)
        pixels, labels, priors, counted = self.put(arrays, self.everywhere)
        return StoredImages(pixels, labels, priors, taps, counted)

    def all_taps(self, images: np.ndarray) -> list[np.ndarray]:
        """Backbone features of all images, then of all mirrored images, in half precision."""
        parts, starts = [], range(0, len(images), self.inference_batch)
        for direction in (1, -1):
            for start in progress(starts, desc="features", disable=not self.is_main_process):
                batch = images[start : start + self.inference_batch, :, ::direction]
                taps = self._taps(self.local, self.pad_to_power_of_two(batch))
                parts.append([np.asarray(tap[: len(batch)]) for tap in taps])
        return [np.concatenate(taps) for taps in zip(*parts, strict=True)]

    def share(self, count: int) -> range:
        return range(count)  # Of every process, as they put equal arrays on their devices.

    def step(self, draw: Draw, images: Images | None = None) -> float:
        if images is None:
            places, stored = draw.indices, self.stored
        else:
            places, stored = np.arange(len(images)), self.store(images)
        indices, mirrored, corners, recoloring = self.put(
            (
                places.astype(np.int32),
                draw.mirrored,
                draw.corners.astype(np.int32),
                draw.recoloring,
            ),
            self.shared,
        )
        seed = self.put(np.uint32(draw.seed), self.everywhere)
        with with_others(jax.process_count()):
            learnt, running, self.moments, loss = self._step(
                self.parts.learnt,
                self.parts.running,
                self.moments,
                self.parts.fixed,
                stored,
                DeviceDraw(indices, mirrored, corners, seed, recoloring),
                hold=holds_backbone(self.plan, draw.step),
            )
            self.parts = Parts(learnt, running, self.parts.fixed)
            return float(loss)

    def maps(self, images: Images) -> dict[str, np.ndarray]:
        maps = self._maps(self.local, *self.padded_arrays(images))
        cut = {name: np.asarray(values)[: len(images)] for name, values in maps.items()}
        return cut if self.regions > 2 else {n: np.clip(v, 0, 1) for n, v in cut.items()}

    def descriptors(self, images: Images) -> np.ndarray:
        return np.asarray(self._descriptors(self.local, *self.padded_arrays(images)))[: len(images)]

    def backbone_features(self, images: Images) -> object:
        taps = self._taps(self.local, self.pad_to_power_of_two(images.images))
        return jax.block_until_ready(taps)

    def pixel_weights(self, images: Images) -> np.ndarray:
        loss, output, labels, *_ = self.loss_view(images)
        gradient = np.asarray(jax.grad(loss)(output, labels))
        return np.abs(gradient).sum(axis=-1)[: len(images)]

    def loss_view(self, image: Images) -> LossView:
        parts = self.local
        output, batch = self._output(parts, *self.padded_arrays(image))

        def loss(output: Array, labels: Array, mask: Array | None = batch.counted) -> Array:
            return self._loss(parts, output, batch._replace(labels=labels, counted=mask))

        return LossView(loss, output, batch.labels, batch.images, batch.counted)

    def padded_arrays(self, images: Images) -> tuple[Any, ...]:
        """Images, labels, priors and counted pixels, padded to a power of two, and a seed."""
        labels, counted = truth(images, images.has_void)
        arrays = (images.images, labels, images.priors, counted)
        return (*jax.tree.map(self.pad_to_power_of_two, arrays), np.uint32(self.seed))

    @staticmethod
    def pad_to_power_of_two(x: np.ndarray) -> np.ndarray:
        """Repeat the first image up to a power of two, so that few batch sizes are compiled."""
        missing = (1 << (len(x) - 1).bit_length()) - len(x)
        return np.concatenate([x, np.repeat(x[:1], missing, axis=0)])

    @property
    def local(self) -> Parts:
        """The variables on the first device of this process."""
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
        current = to_torch(state).items() if self.backbone_is_shared else ()
        backbone = {name: array for name, array in current if name.startswith("backbone.")}
        with jax.default_device(self.local_device):
            loaded = from_torch(state, backbone | weights)
        parts = nnx.split_state(loaded, partial(is_learnt, self.frozen), nnx.BatchStat, ...)
        self.parts = self.put(Parts(*parts), self.everywhere)

    def state(self) -> Arrays:
        weights = {f"weights/{name}": array for name, array in self.weights().items()}
        moments = flatten(self.moments)
        return weights | {f"optimizer/{name}": array for name, array in moments.items()}

    def restore(self, state: Arrays) -> None:
        kind = "weights/"
        self.load({n.removeprefix(kind): a for n, a in state.items() if n.startswith(kind)})
        wanted = {f"optimizer/{name}": array for name, array in flatten(self.moments).items()}
        stored = {name: array for name, array in state.items() if name[:10] == "optimizer/"}
        if fault := describe_mismatch(stored, wanted):
            raise InputError(f"arrays of the optimizer: {fault}")
        moments = [stored[name] for name in wanted]
        tree = jax.tree.unflatten(jax.tree.structure(self.moments), moments)
        self.moments = self.put(tree, self.everywhere)

    def any_process(self, flag: bool) -> bool:
        if jax.process_count() == 1:
            return flag
        with with_others(jax.process_count()):
            return bool(multihost_utils.process_allgather(np.array(flag)).any())

    @staticmethod
    def put(tree: Any, sharding: NamedSharding) -> Any:
        """Put arrays, equal in all processes, on the devices: replicated or sharded."""

        def make(x: Any) -> Array:
            x = np.asarray(x)
            return jax.make_array_from_callback(x.shape, sharding, lambda index: x[index])

        return jax.tree.map(make, tree)


def truth(images: Images, has_void: bool) -> tuple[np.ndarray, np.ndarray | None]:
    """The labels, 0 on void pixels, and the pixels that count; None if all do."""
    if not has_void:
        return images.labels, None
    counted = images.labels != VOID
    return images.labels * counted, counted


# Compiled functions ------------------------------------------------------------------------------

Network = Callable[[Parts], System]


def is_learnt(frozen: bool, path: tuple[Any, ...], variable: Any) -> bool:
    return isinstance(variable, nnx.Param) and not (frozen and path[0] == "backbone")


def merged(graph: Any, dtype: Any, parts: Parts) -> System:
    """The network of these variables, with its convolutions and linear layers in `dtype`."""
    system = nnx.merge(graph, *parts, copy=True)
    for _, module in nnx.iter_modules(system):
        if isinstance(module, (nnx.Conv, nnx.ConvTranspose, nnx.Linear, Depthwise)):
            nnx.update(module, jax.tree.map(lambda x: x.astype(dtype), nnx.state(module)))
    return system


def train_step(
    network: Network,
    plan: Scale,
    learnt: State,
    running: State,
    moments: Any,
    fixed: State,
    stored: StoredImages,
    draw: DeviceDraw,
    *,
    hold: bool = False,
) -> tuple[State, State, Any, Array]:
    """One training step: new variables and optimizer state, and the loss before the update.

    hold: Leave the backbone as it is, with its moments.
    """
    crop = plan.crop
    priors = jnp.minimum(draw.indices, len(stored.priors) - 1)
    batch = Batch(
        images=pixels(select(stored.images, draw.indices, draw, crop)),
        labels=select(stored.labels, draw.indices, draw, crop).astype(jnp.int32),
        prior=scale_8bit(select(stored.priors, priors, draw, crop)),
        key=jax.random.key(draw.seed),
        counted=jax.tree.map(lambda x: select(x, draw.indices, draw, crop), stored.counted),
    )
    if plan.enlarge_crops:
        batch = enlarged(batch, stored.images.shape[1:3])
    if draw.recoloring is not None:
        gain, offset, noise = draw.recoloring
        batch = batch._replace(images=jnp.clip(batch.images * gain + offset + noise, 0, 1))
    rows = draw.indices + len(stored.images) * draw.mirrored
    taps = [tap[rows].astype(jnp.float32) for tap in stored.taps]

    def objective(learnt: State) -> tuple[Array, State]:
        system = network(Parts(learnt, running, fixed))
        system.train()  # type: ignore[no-untyped-call]
        given = taps or system.backbone(batch.images)
        output = system(jax.lax.stop_gradient(given) if hold else given)
        return system.loss(output, batch), nnx.state(system, nnx.BatchStat)

    (loss, running), gradient = jax.value_and_grad(objective, has_aux=True)(learnt)
    updates, moments = optimizer_of(plan, hold).update(gradient, moments, learnt)
    return optax.apply_updates(learnt, updates), running, moments, loss


def select(stored: Array, rows: Array, draw: DeviceDraw, crop: int | None) -> Array:
    """The images of a step from `stored`, mirrored and cropped."""
    x = stored[rows]
    x = jnp.where(draw.mirrored.reshape(-1, *[1] * (x.ndim - 1)), jnp.flip(x, axis=2), x)
    if crop is None:
        return x

    def cut(image: Array, corner: Array) -> Array:
        channels = image.shape[2:]
        start = (*corner, *[np.int32(0)] * len(channels))
        return jax.lax.dynamic_slice(image, start, (crop, crop, *channels))

    return jax.vmap(cut)(x, draw.corners)


def enlarged(batch: Batch, size: tuple[int, ...]) -> Batch:
    """The batch with images, labels and priors of a greater size."""
    return batch._replace(
        images=resize(batch.images, size),
        labels=nearest_resize(batch.labels, size),
        counted=None if batch.counted is None else nearest_resize(batch.counted, size),
        prior=resize(batch.prior[..., None], size)[..., 0],
    )


def pixels(images: Array) -> Array:
    return images.astype(jnp.float32) / 255


def scale_8bit(priors: Array) -> Array:
    """Convert prior maps from 0..255 to [0, 1] exactly.

    XLA compiles a division by 255 to a product, whose rounding can move a prior across the
    thresholds that select pairs.
    """
    return jnp.asarray(np.arange(256, dtype=np.float32) / np.float32(255))[priors]


def taps_of(network: Network, parts: Parts, images: Array) -> list[Array]:
    return [tap.astype(jnp.float16) for tap in network(parts).backbone(pixels(images))]


def output_of(
    network: Network,
    parts: Parts,
    images: Array,
    labels: Array,
    prior: Array,
    counted: Array | None,
    seed: Array,
) -> tuple[System, Array, Batch]:
    system = network(parts)
    system.eval()  # type: ignore[no-untyped-call]
    key = jax.random.key(seed)
    batch = Batch(pixels(images), labels.astype(jnp.int32), scale_8bit(prior), key, counted)
    return system, system(system.backbone(batch.images)), batch


def maps_of(network: Network, regions: int, *inputs: Any) -> dict[str, Array]:
    system, output, batch = output_of(network, *inputs)
    if regions > 2:
        return {"regions": system.segmentation(output, batch)}
    # The main map comes first, and JAX would sort the keys of a plain dict.
    return OrderedDict(system.maps(output, batch))


def descriptors_of(network: Network, *inputs: Any) -> Array:
    system, output, batch = output_of(network, *inputs)
    return system.descriptors(output, batch)


# Setup -------------------------------------------------------------------------------------------


def optimizer_of(plan: Scale, hold: bool = False) -> optax.GradientTransformation:
    """The optimizer of a plan on its schedule, with a lower rate for a fine-tuned backbone.

    hold: Do not update the backbone, nor its moments. The state is of the same form either way.
    """
    rates = np.array([learning_rate(plan, step) for step in range(plan.steps)], np.float32)

    def at(share: float, hold: bool = False) -> optax.GradientTransformation:
        rule = rule_of(plan)
        if hold:
            rule = optax.GradientTransformation(rule.init, no_update)
        # Its count is that of all steps, also of those that leave the moments as they are.
        rate = optax.scale_by_learning_rate(lambda step: jnp.asarray(share * rates)[step])
        return optax.chain(rule, rate)

    def kinds(learnt: State) -> State:
        return jax.tree_util.tree_map_with_path(
            lambda path, _: "backbone" if path[0].key == "backbone" else "own", learnt
        )

    if plan.backbone_rate == 0:
        return at(1.0)
    return optax.partition({"own": at(1.0), "backbone": at(plan.backbone_rate, hold)}, kinds)


def rule_of(plan: Scale) -> optax.GradientTransformation:
    """The direction of a step, before the learning rate."""
    if isinstance(plan.optimizer, SGD):
        momentum, decay = plan.optimizer.momentum, plan.optimizer.weight_decay
        return optax.chain(optax.add_decayed_weights(decay), optax.trace(momentum))
    return optax.scale_by_adam()


def no_update(updates: Any, state: Any, params: Any = None) -> tuple[Any, Any]:
    return jax.tree.map(jnp.zeros_like, updates), state


def flatten(tree: Any) -> Arrays:
    """The leaves of a tree, by their dotted paths."""
    leaves = jax.tree_util.tree_flatten_with_path(tree)[0]
    return {
        jax.tree_util.keystr(path, simple=True, separator="."): np.array(leaf)
        for path, leaf in leaves
    }


def begin(device: str, patience: float) -> list[jax.Device]:
    """Join the other processes, if any, and return all devices of the requested kind.

    Several processes are described by the environment variables JAX_NUM_PROCESSES, JAX_PROCESS_ID
    and JAX_COORDINATOR_ADDRESS (host:port of the first process). patience: See `Watch.begin`.
    """
    processes = int(os.environ.get("JAX_NUM_PROCESSES", "1"))
    if processes > 1 and not jax.distributed.is_initialized():
        variables = ("JAX_COORDINATOR_ADDRESS", "JAX_PROCESS_ID")
        if missing := [name for name in variables if name not in os.environ]:
            raise InputError(
                f"JAX_NUM_PROCESSES is {processes}, but {' and '.join(missing)} must be set too"
            )
        address, rank = (os.environ[name] for name in variables)
        # Otherwise JAX handles SIGTERM itself, and runs are not saved.
        jax.config.update("jax_enable_preemption_service", False)
        with waiting(processes, address), with_others(processes):
            jax.distributed.initialize(
                address,
                processes,
                int(rank),
                initialization_timeout=60 * JOIN_MINUTES,
                # JAX aborts with many lines, so the watch comes first.
                heartbeat_timeout_seconds=60 + int(patience),
                # The first process measures alone, and the others wait for it at their exit. If
                # that wait times out, JAX aborts all of them.
                shutdown_timeout_seconds=7200,
            )

        def share(numbers: list[int]) -> list[int]:
            sent = multihost_utils.broadcast_one_to_all(np.array(numbers, np.int32))
            return np.asarray(sent).tolist()

        Watch.begin(int(rank), processes, address.rpartition(":")[0], share, patience)
    try:
        return jax.devices(None if device == "auto" else device)
    except RuntimeError as error:
        raise InputError(f"--device {device}: {error}; pass --device cpu or auto") from None
