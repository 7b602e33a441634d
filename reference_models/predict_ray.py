"""The command `python -m reference_models.predict_ray IMAGE…`: `predict` on a Ray cluster."""

import logging
import os
import sys
import tempfile
import traceback
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from reference_models.command_line import command, expected, parse
from reference_models.data.photographs import read_photograph
from reference_models.errors import InputError, escaped
from reference_models.files import make_folder, remove_left
from reference_models.machine import keep_memory
from reference_models.measures.saliency import eight_bit
from reference_models.paths import DATA
from reference_models.prediction.jobs import Companions, Job, check_outputs, find_jobs
from reference_models.prediction.options import Common
from reference_models.prediction.outputs import Outputs
from reference_models.prediction.report import DONE, FINISHED, Report, fault_of
from reference_models.shards import Shard
from reference_models.training.photographs import Inputs, Model, Sizes, Source, choose_source
from reference_models.training.trained import bundled_models

# Read at the import. Ray would report its use to its makers, and print its own lines of errors.
os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
os.environ.setdefault("RAY_BACKEND_LOG_LEVEL", "fatal")
try:
    import ray
    from ray.data import ActorPoolStrategy, DataContext
except ImportError:
    sys.exit('error: Ray is not installed; run pip install "ray[data]"')

STORE_BYTES = 2**29
"""Shared memory for what Ray's processes pass on: only what the network reads and returns."""
BLOCK = 16
"""Photographs of a task. What is lost with a process is computed again by another."""
RETRIES = 3
"""How often a task whose process was lost is repeated."""


@dataclass(frozen=True)
class PredictRay(Common):
    """Find the salient object in photographs with a trained network, on a Ray cluster.

    Reads, computes and writes what `predict` does, with the same names, faults.tsv and skipping of
    what is finished. Ray runs the parts on the cores and GPUs of all machines and repeats what a
    lost process or machine had not finished. All machines must see the same files under the same
    paths, and have this package installed.
    """

    address: str | None = None
    """Address of a running Ray cluster; "auto" finds the one of this machine. Default: Ray is
    started on this machine, and stopped at the end."""
    networks: int | None = None
    """Processes that hold the network, each on a GPU; or each on half a core, where the cluster has
    no GPU or with --device cpu. Default: one for each GPU or core."""


def main() -> None:
    with command():
        failed = predict_ray(parse(PredictRay, "predict_ray"))
    sys.exit(1 if failed else 0)


def predict_ray(options: PredictRay) -> list[str]:
    """Write the images for every photograph; returns an error message for each that failed."""
    options = with_absolute_paths(options)
    options.check_numbers("batch", "networks")
    kinds = options.kinds
    jobs = find_jobs(options.images, options.out)
    source = choose_source(
        options.model, options.prior is not None, options.backend, options.device, options.archives
    )
    outputs = Outputs(options.out, kinds, options.format, source.settings)
    check_outputs(jobs, options.out, outputs.ends)
    make_folder(options.out, "--out")
    remove_left(options.out)
    unknown = {str(job.stem): job for job in jobs}
    with cluster(options.address), Report(options.out, Shard(), len(jobs), source.model) as report:
        # What is lost with a process each time is done again one by one, to find what is to blame.
        for block, batch, few in ((BLOCK, options.batch, 4 * BLOCK), (1, 1, 1)):
            left = replace(options, batch=batch)
            for row in dataset(list(unknown.values()), block, source, outputs, left).iter_rows():
                if row["error"]:
                    raise InputError(*row["error"].splitlines())
                if (job := unknown.pop(row["stem"], None)) is not None:
                    report.add(job, row["outcome"])
            if not unknown:
                break
            if len(unknown) == len(jobs) > few:
                raise InputError(
                    "every process of Ray ended before it had done a photograph, perhaps for lack "
                    "of memory, or because a machine lacks this package or the files; pass a "
                    "smaller --networks, or try one photograph with predict"
                )
        for job in unknown.values():
            name = escaped(str(job.file))
            report.add(job, f"{name} ended the process that read it, each time; convert it")
    return report.faults


def with_absolute_paths(options: PredictRay) -> PredictRay:
    """The options for processes in other folders."""
    model = options.model
    return replace(
        options,
        images=tuple(path.absolute() for path in options.images),
        model=model if model is None or model in bundled_models() else str(Path(model).absolute()),
        prior=options.prior and options.prior.absolute(),
        out=options.out.absolute(),
        archives=(options.archives or DATA).absolute(),
    )


@contextmanager
def cluster(address: str | None) -> Iterator[None]:
    """A connection to the cluster at the address, or Ray on this machine for the block."""
    common: dict[str, Any] = {"log_to_driver": False, "logging_level": logging.ERROR}
    with tempfile.TemporaryDirectory(prefix="ray-", ignore_cleanup_errors=True) as folder:
        if address is None:
            common |= {"include_dashboard": False, "_temp_dir": folder}
            common |= {"object_store_memory": STORE_BYTES}
        try:
            ray.init(address, **common)
        except ConnectionError as error:
            raise InputError(f"--address {address}: {error}; start Ray there, or omit it") from None
        try:
            yield
        finally:
            ray.shutdown()


def dataset(
    jobs: list[Job], block: int, source: Source, outputs: Outputs, options: PredictRay
) -> Any:
    """A Ray dataset whose rows are the outcomes of all photographs; it is computed when read.

    block: Photographs of a task.
    """
    context = DataContext.get_current()
    context.enable_progress_bars = context.print_on_execution_start = False
    context.max_errored_blocks = -1  # A photograph that ends its process stops no other.
    # Ray has announced other ways for these arguments, but none for the number of retries.
    warnings.filterwarnings("ignore", "`ray_remote_args` is deprecated")
    logging.getLogger("ray.data").setLevel(logging.ERROR)
    available: dict[str, float] = ray.cluster_resources()  # type: ignore[no-untyped-call]
    kind = "GPU" if options.device != "cpu" and available.get("GPU", 0) > 0 else "CPU"
    networks = options.networks or int(available[kind])
    if networks > available[kind]:
        raise InputError(
            f"--networks {networks} is more than the {available[kind]:g} {kind}s of the cluster"
        )
    batch = options.batch or (1 if kind == "CPU" else 16)
    share: dict[str, Any] = {"num_cpus": 0.5} if kind == "CPU" else {"num_gpus": 1}
    priors = None if options.prior is None else Companions(options.prior, "--prior")
    rows = [{"job": job} for job in jobs]
    return (
        ray.data.from_items(rows, override_num_blocks=-(-len(rows) // block))
        .map(Read(source.sizes, outputs, priors), max_retries=RETRIES)
        .map_batches(
            Network,
            fn_constructor_args=(source,),
            batch_size=batch,
            compute=ActorPoolStrategy(size=networks),
            max_task_retries=RETRIES,
            **share,
        )
        .map(Write(outputs), num_cpus=0.5, max_retries=RETRIES)
    )


# Tasks -------------------------------------------------------------------------------------------


class State(NamedTuple):
    """A photograph on its way; `outcome` is DONE until there is another."""

    job: Job
    tag: str = ""
    inputs: Inputs | None = None
    saliency: np.ndarray | None = None
    outcome: str = DONE
    error: str = ""
    """One that concerns all photographs, such as a full disk."""


def attempt(work: Callable[[Job], str], state: State) -> State:
    """The state with the outcome or the error of `work`. Raised, an error would be taken for the
    end of this process."""
    try:
        return state._replace(outcome=fault_of(work, state.job))
    except Exception as error:
        return state._replace(error=text_of(error))


def text_of(error: Exception) -> str:
    return expected(error) or traceback.format_exc()


@dataclass(frozen=True)
class Read:
    """Decodes a photograph to what the network reads."""

    sizes: Sizes
    outputs: Outputs
    priors: Companions | None

    def __call__(self, row: dict[str, Job]) -> dict[str, State]:
        state = State(row["job"])

        def read(job: Job) -> str:
            nonlocal state
            prior = None if self.priors is None else self.priors.of(job)
            tag = self.outputs.tag(job, *([] if prior is None else [prior]))
            if self.outputs.finished(job, tag):
                return FINISHED
            inputs = self.sizes.inputs(read_photograph(job.file).pixels, prior)
            state = State(job, tag, inputs)
            return DONE

        done = attempt(read, state)
        return {"state": done._replace(tag=state.tag, inputs=state.inputs)}


class Network:
    """Computes the maps of a batch, in a process that keeps the network."""

    def __init__(self, source: Source) -> None:
        keep_memory()
        self.source = source
        self.model: Model | None = None

    def __call__(self, batch: dict[str, Any]) -> dict[str, Any]:
        states: list[State] = list(batch["state"])
        inputs = [state.inputs for state in states if state.inputs is not None]
        try:
            # Not in the constructor, whose errors Ray would take for the end of this process.
            self.model = self.model or self.source.load()
            maps = iter(self.model.maps(inputs) if inputs else ())
        except Exception as error:
            return {"state": [state._replace(error=text_of(error)) for state in states]}
        done = [
            state if state.inputs is None else state._replace(saliency=next(maps))
            for state in states
        ]
        return {"state": done}


@dataclass(frozen=True)
class Write:
    """Writes the images. Decodes the photograph again if they show it: to pass on decoded
    photographs of any size would take more time and memory than that."""

    outputs: Outputs

    def __call__(self, row: dict[str, State]) -> dict[str, str]:
        state: State = row["state"]

        def write(job: Job) -> str:
            assert state.inputs is not None
            assert state.saliency is not None
            photo = None if self.outputs.kinds == ("map",) else read_photograph(job.file)
            saliency = eight_bit(state.saliency, state.inputs.shape)
            self.outputs.write(job, state.tag, photo, saliency)
            return DONE

        if state.outcome == DONE and not state.error:
            state = attempt(write, state)
        return {"stem": str(state.job.stem), "outcome": state.outcome, "error": state.error}


if __name__ == "__main__":
    main()
