"""The command `python -m reference_models.evaluate MAPS --masks DATA`: measures of maps."""

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from hashlib import sha256
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import tyro

from reference_models.command_line import command, parse
from reference_models.data.images import TestSet
from reference_models.data.pairs import Pairs, find_pairs
from reference_models.data.sets import Sources, check_masks, read_test_folder
from reference_models.errors import InputError, count
from reference_models.files import make_folder, read_about, write_json
from reference_models.machine import leave_group, progress
from reference_models.measures.rows import RowFile, in_order, joined, rounded, rows_path
from reference_models.measures.saliency import (
    EXACT,
    LABELS,
    NAMES,
    Pair,
    means,
    measure_stream,
    one_line,
)
from reference_models.options import Backend
from reference_models.shards import Shard
from reference_models.training.score import Rows, Scored, flatten_rows, means_of, score
from reference_models.training.stopping import clock
from reference_models.training.trained import (
    RUN_WEIGHTS,
    bundled_models,
    load_network,
    refuse_two_meanings,
    weights_file,
)
from saliency_losses import __version__

Row = Mapping[str, Any]


@dataclass(frozen=True)
class Options:
    """Measure saliency maps of any method, or a trained network, against true masks.

    Maps and masks are paired by file name without extension, so a map may be a PNG and its mask a
    WebP. Maps are read as grey values from 0 to 255 and are not normalised. A map is resized to the
    size of its mask if they differ.
    """

    maps: Annotated[Path, tyro.conf.Positional, tyro.conf.arg(metavar="MAPS")]
    """Saliency maps: a folder or zip, or a folder inside a zip (maps.zip/drfi). Or a network: a run
    folder of `train`, or a name in reference_models/weights."""
    masks: Path
    """True masks: a folder or zip of masks, or one with masks/, such as ecssd.zip. To evaluate a
    network it must also hold images/, and may hold priors/ for a network that starts from prior
    maps; a network that divides images into regions needs segmentations/ instead of masks/."""
    shared: bool = False
    """Ignore masks without a map; otherwise they are an error."""
    out: Path | None = None
    """JSON file to write the measures to, besides printing them. For maps, the measures of each
    image are written beside it, as NAME.rows.jsonl, as they come; the same command goes on where
    the last one stopped, and measures images again whose files have changed."""
    shard: str | None = None
    """I/N: measure the I-th of N parts of the images, for several processes or machines that share
    the work. Default: by RANK and WORLD_SIZE, or the task of a Slurm array, if they are set. It
    needs --out, and writes rows only."""
    join: bool = False
    """Instead of measuring, report the rows of all shards; other options as for the shards."""
    exact: bool = False
    """Also compute the weighted F exactly as the paper defines it, and as the loss approximates it;
    slower."""
    backend: Backend | None = None
    """For a network: framework to compute in. Default: the one it was trained in."""
    archives: Path | None = None
    """For a network with a frozen backbone that is not in reference_models/weights: folder of the
    ImageNet weights. Default: data/."""


def main() -> None:
    with command():
        options = parse(Options, "evaluate")
        if not options.join:
            options = replace(options, shard=str(Shard.choose(options.shard)))
        leave_group()
        run(options)


def run(options: Options) -> None:
    if options.out is not None:
        make_folder(options.out.parent, "--out")
        if options.out.exists() and not options.out.is_file():
            kind = "a folder" if options.out.is_dir() else "not a regular file"
            raise InputError(f"--out {options.out} is {kind}; pass the name of a JSON file")
    refuse_two_meanings(str(options.maps))
    is_network = str(options.maps) in bundled_models() or (options.maps / RUN_WEIGHTS).is_file()
    if options.join:
        run_join(options, is_network)
    elif is_network:
        run_network(options)
    else:
        run_maps(options)


def run_maps(options: Options) -> None:
    if options.backend is not None:
        raise InputError(
            f"--backend applies to networks only, and {options.maps} is a folder or zip of maps; "
            "omit it"
        )
    if len(options.maps.parts) == 1 and not options.maps.exists():
        raise InputError(
            f"{options.maps} is not a folder or zip of maps, a run folder or a bundled model; the "
            f"bundled models are: {', '.join(bundled_models())}"
        )
    shard = chosen_shard(options)
    pairs = find_pairs(options.masks, options.maps, options.shared)
    if options.out is None:
        rows = map(rounded, measured(pairs, range(len(pairs.stems)), names_of(options)))
        report(options, pairs.notes, len(pairs.stems), rows)
        return
    path = rows_path(options.out, shard)
    header = about(options, len(pairs.stems), pairs.digest(), pairs.notes)
    header |= {"void": pairs.void, "scale": list(pairs.scale)}
    stamps = {place: pairs.stamp(place) for place in shard.of(range(len(pairs.stems)))}
    with RowFile.begin(path, header, shard, stamps) as file:
        add_rows(file, pairs, stamps, names_of(options))
        if shard.count > 1:
            end_shard(options, file)
        else:
            report(options, pairs.notes, len(pairs.stems), in_order([file]))


def chosen_shard(options: Options) -> Shard:
    shard = Shard.choose(options.shard)
    if shard.count > 1 and options.out is None:
        raise InputError(
            f"shard {shard} needs a file for its rows; pass --out, the same for all shards, or "
            "--shard 1/1 for all images"
        )
    return shard


def end_shard(options: Options, file: RowFile) -> None:
    images = count(len(file.offsets), "image")
    print(f"shard {file.shard}: {images} of {options.masks}, rows in {file.path}")
    print("run the same command with --join instead of --shard when all shards are done")


def run_join(options: Options, is_network: bool) -> None:
    """Report what all shards have measured."""
    if options.out is None or options.shard is not None:
        raise InputError("--join needs the --out of the shards, and no --shard")
    with joined(options.out) as shards:
        found = shards[0].about
        for name, value in asked(options).items():
            if found[name] != value:
                raise InputError(
                    f"the shards of {options.out} are of {name} {found[name]}, not {value}; run "
                    "the command of the shards with --join instead of --shard"
                )
        if is_network:
            report_network(options, found["notes"], found["images"], joined_means(shards))
        else:
            report(options, found["notes"], found["images"], in_order(shards))


def names_of(options: Options) -> tuple[str, ...]:
    return NAMES + EXACT * options.exact


def asked(options: Options) -> dict[str, Any]:
    """What the rows of a file are measures of, as far as the command says."""
    return {
        "maps": str(options.maps),
        "masks": str(options.masks),
        "measures": list(names_of(options)),
    }


def about(options: Options, images: int, files: str, notes: Sequence[str]) -> dict[str, Any]:
    """What the rows of a file are measures of. files: Digest of the files that are measured."""
    found = {"images": images, "files": files, "notes": notes, "version": __version__}
    return asked(options) | found


def measured(pairs: Pairs, places: Sequence[int], names: Sequence[str]) -> Iterator[Row]:
    """The measures of the pairs at these places."""

    def read(index: int) -> Pair:
        saliency, mask = pairs.read(places[index])
        return saliency.values, mask.object, mask.void

    rows = measure_stream(read, len(places), names)
    yield from progress(rows, desc="measuring", total=len(places), unit=" images")


def add_rows(file: RowFile, pairs: Pairs, stamps: Mapping[int, str], names: Sequence[str]) -> None:
    """Measure the pairs of a shard that its file lacks. stamps: Of its pairs, by place."""
    places = [place for place in stamps if place not in file.offsets]
    if 0 < len(places) < len(stamps):
        print(f"{file.path} has rows of {count(len(stamps) - len(places), 'image')}; going on")
    for place, row in zip(places, measured(pairs, places, names), strict=True):
        file.add(place, pairs.stems[place], stamps[place], rounded(row))


def report(options: Options, notes: Sequence[str], images: int, rows: Iterable[Row]) -> None:
    """Print and write the means over the rows of all images."""
    values = means(rows, names_of(options))
    for note in notes:
        print(f"note: {note}")
    print(f"{count(images, 'image')} of {options.masks}, maps of {options.maps}")
    for name, value in values.items():
        print(f"{LABELS[name]:27}{value:.4f}")
    write(
        options.out,
        maps=str(options.maps),
        masks=str(options.masks),
        images=images,
        notes=notes,
        measures=values,
    )


# Networks ----------------------------------------------------------------------------------------


def run_network(options: Options) -> None:
    """Measure all maps of a network from all priors, as after training."""
    if options.shared:
        raise InputError(f"--shared applies to maps only, and {options.maps} is a network; omit it")
    shard = chosen_shard(options)
    network = load_network(str(options.maps), archives=options.archives, backend=options.backend)
    trained = network.options
    sources = Sources(options.masks, trained.archive_folder, regions=trained.chosen_recipe.regions)
    test, notes = read_test_folder(options.masks, trained.plan.size, sources)
    weights = read_about(weights_file(str(options.maps)))
    if weights.get("data") == str(options.masks.resolve()):
        notes.append(
            "the network was trained on this data set; run.json has its measures on the images "
            "that were held out of training"
        )
    if trained.chosen_recipe.regions == 2:
        check_masks(test.truth, test.voids, str(options.masks))
    if shard.count == 1 or options.out is None:
        scored = score(network, [test], clock(), options.exact)
        report_network(options, notes, len(test.truth), means_of(scored))
        return
    places = shard.of(range(len(test.truth)))
    scored = score(network, [test.only(places)], clock(), options.exact) if places else {}
    header = about(options, len(test.truth), digest(weights, test), notes)
    with RowFile.begin(rows_path(options.out, shard), header, shard, stamps={}) as file:
        for place, row in zip(places, rows_of(scored, len(places)), strict=True):
            file.add(place, test.images.names[place], "", {"tests": row})
        end_shard(options, file)


def digest(weights: Mapping[str, Any], test: TestSet) -> str:
    """Digest of the weights' description and of the names, truth and void of a test set."""
    found = sha256(json.dumps(weights, sort_keys=True).encode())
    for name, truth in zip(test.images.names, test.truth, strict=True):
        found.update(f"{name}\n{truth.shape}\n".encode(errors="surrogateescape"))
        found.update(np.ascontiguousarray(truth).data)
    for place, void in enumerate(test.voids):
        if void is not None:
            found.update(f"{place}\n".encode())
            found.update(np.ascontiguousarray(void).data)
    return found.hexdigest()


def rows_of(scored: Scored, images: int) -> list[dict[str, Any]]:
    """The measures of each image, by test (with its corruption or prior) and map."""
    found: list[dict[str, Any]] = [{} for _ in range(images)]
    for test, each in scored.items():
        for name, rows in each.maps.items():
            for image, row in zip(found, rows, strict=True):
                kept = {measure: row[measure] for measure in each.measures if measure in row}
                image.setdefault(test, {})[name] = rounded(kept)
    return found


def joined_means(shards: Sequence[RowFile]) -> Rows:
    """`means_of` by the rows of all shards."""
    names: dict[tuple[str, str], dict[str, None]] = {}
    for row in in_order(shards):
        for test, maps in row["tests"].items():
            for name, measures in maps.items():
                names.setdefault((test, name), {}).update(dict.fromkeys(measures))
    found: Rows = {}
    for (test, name), measures in names.items():
        rows = (row["tests"][test][name] for row in in_order(shards) if test in row["tests"])
        found.setdefault(test, {})[name] = means(rows, tuple(measures))
    return found


def report_network(options: Options, notes: Sequence[str], images: int, rows: Rows) -> None:
    for note in notes:
        print(f"note: {note}")
    print(f"{count(images, 'image')} of {options.masks}, maps of {options.maps}")
    for name, row in flatten_rows(rows):
        print(f"{name}\n  {one_line(row)}")
    write(
        options.out,
        network=str(options.maps),
        masks=str(options.masks),
        images=images,
        notes=notes,
        measures=rows,
    )


def write(out: Path | None, **content: object) -> None:
    if out is not None:
        write_json(out, content)
        print(f"written to {out}")


if __name__ == "__main__":
    main()
