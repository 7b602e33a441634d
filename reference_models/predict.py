"""The command `python -m reference_models.predict IMAGE…`: saliency maps of photographs."""

import sys
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from threading import Lock

from reference_models.command_line import command, parse
from reference_models.data.masks import Mask, mask_notes, read_mask
from reference_models.data.photographs import Photograph, read_photograph
from reference_models.data.pictures import check_size
from reference_models.errors import InputError
from reference_models.files import atomic_path, make_folder, remove_left
from reference_models.machine import cores, keep_memory, leave_group, processes_here
from reference_models.measures.saliency import eight_bit
from reference_models.prediction.jobs import Companions, Job, check_outputs, find_jobs
from reference_models.prediction.options import Common
from reference_models.prediction.outputs import Outputs, exif_of
from reference_models.prediction.report import DONE, FINISHED, Report, fault_of
from reference_models.prediction.sharing import Batches, Budget, in_threads
from reference_models.shards import Shard
from reference_models.training.photographs import Model, Source, choose_source

WORKER_PIXELS = 2**24
"""Pixels that each worker may hold on average. A pixel takes about 30 bytes."""


@dataclass(frozen=True)
class Predict(Common):
    """Find the salient object in photographs with a trained network.

    For photo.jpg, writes photo-map.png (the saliency map, grey, 0-255), photo-cutout.png (the
    photograph with the map as alpha channel) and photo-overlay.png (the map in red on the
    photograph); with --mask also photo-explained.png. What the same command has finished before is
    skipped. Photographs that cannot be read are listed in OUT/faults.tsv, with the reason.
    """

    mask: Path | None = None
    """True mask of the photograph, of the same size, or a folder with one mask per photograph,
    paired by file name. photo-explained.png then shows the training loss at the network's input
    size: the map, the mask, and the gradient of the loss with respect to the network's output.
    Photographs are then predicted again even if they are finished."""
    workers: int | None = None
    """Threads that each read a photograph, wait for the network and write. Default: one per core,
    and one more for the time that the disk takes; with --batch at least twice as many as that."""
    shard: str | None = None
    """I/N: predict every N-th photograph from the I-th on, for N machines that share the work.
    Default: what torchrun (RANK, WORLD_SIZE) or a Slurm array says, otherwise all."""


def main() -> None:
    with command():
        options = parse(Predict, "predict")
        shard = Shard.choose(options.shard)
        leave_group()
        keep_memory()
        failed = predict(replace(options, shard=str(shard)))
    sys.exit(1 if failed else 0)


def predict(options: Predict) -> list[str]:
    """Write the images for every photograph; returns an error message for each that failed."""
    shard = Shard.choose(options.shard)
    kinds = options.kinds
    options.check_numbers("batch", "workers")
    jobs = find_jobs(options.images, options.out)
    source = choose_source(
        options.model, options.prior is not None, options.backend, options.device, options.archives
    )
    if options.mask is not None:
        check_mask(options.mask, source, len(jobs))
    outputs = Outputs(options.out, kinds, options.format, source.settings)
    check_outputs(jobs, options.out, [*outputs.ends, "-explained.png"])
    share = shard.of(jobs)
    make_folder(options.out, "--out")
    remove_left(options.out)
    predictor = Predictor(options, source, outputs, len(share))
    report = Report(options.out, shard, len(share), source.model)
    with predictor.encoders, report:
        for job, outcome in in_threads(predictor.outcome, share, predictor.workers):
            report.add(job, outcome)
        for note in mask_notes(predictor.kinds_of_masks):
            print(f"note: {note}")
    return report.faults


class Predictor:
    """Reads photographs, computes their maps and writes their images, in several threads."""

    def __init__(
        self, options: Predict, source: Source, outputs: Outputs, photographs: int
    ) -> None:
        self.outputs = outputs
        self.priors = None if options.prior is None else Companions(options.prior, "--prior")
        self.masks = None if options.mask is None else Companions(options.mask, "--mask")
        self.model: Model = source.load()
        self.sizes = self.model.sizes
        size = options.batch or self.model.usual_batch
        own = max(1, cores() // processes_here())
        self.workers = options.workers or max(own + 1, 2 * size * (size > 1))
        self.batches = Batches(self.model.maps, size, own)
        self.budget = Budget(WORKER_PIXELS * max(8, self.workers))
        self.encoders = ThreadPoolExecutor(max(cores(), self.workers))
        self.explaining = Lock()
        self.kinds_of_masks: dict[str, str] = {}
        self.model.limit_threads(min(own, self.workers, photographs))

    def outcome(self, job: Job) -> tuple[Job, str]:
        """The photograph with DONE, FINISHED (before), or what is wrong with it."""
        return job, fault_of(self.predict, job)

    def predict(self, job: Job) -> str:
        prior = None if self.priors is None else self.priors.of(job)
        tag = self.outputs.tag(job, *([] if prior is None else [prior]))
        if self.masks is None and self.outputs.finished(job, tag):
            return FINISHED
        with self.budget.share() as admit:
            photo = read_photograph(job.file, admit)
            inputs = self.sizes.inputs(photo.pixels, prior)
            mask = None if self.masks is None else read_fitting_mask(self.masks.of(job), photo, job)
            saliency = eight_bit(self.batches.map(inputs), inputs.shape)
            self.outputs.write(job, tag, photo, saliency, self.encoders.map)
            if mask is not None:
                with self.explaining:
                    self.kinds_of_masks[str(job.stem)] = mask.kind
                    figure = self.model.explained(inputs, mask)
                    file = self.outputs.folder / f"{job.stem}-explained.png"
                    with atomic_path(file, shared=True) as partial:
                        figure.savefig(partial, format="png", pil_kwargs={"exif": exif_of(tag)})
        return DONE


# Masks -------------------------------------------------------------------------------------------


def check_mask(mask: Path, source: Source, photographs: int) -> None:
    if not mask.exists():
        raise InputError(f"--mask {mask} does not exist")
    if source.options(source.model).chosen_recipe.loss == "js-mi":
        raise InputError(
            f"{source.model} learns from prior maps alone and its loss uses no mask; omit --mask"
        )
    if mask.is_file() and photographs > 1:
        raise InputError(
            f"--mask {mask} is one mask for {photographs} photographs; pass a folder with one mask "
            "per photograph, paired by file name"
        )


def read_fitting_mask(file: Path, photo: Photograph, job: Job) -> Mask:
    """The mask of a photograph, see `read_mask`."""
    mask = read_mask(file)
    height, width = mask.object.shape
    check_size(job.file, photo.pixels.size, file, (width, height))
    return mask


if __name__ == "__main__":
    main()
