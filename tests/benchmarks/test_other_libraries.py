"""Other libraries: every installed one runs, and every robustness check finds its fault."""

import sys
import warnings
from pathlib import Path

import numpy as np
import pytest
import torch

pytest.importorskip("matplotlib")
pytest.importorskip("scipy")

from benchmarks import other_libraries, robustness, tables
from benchmarks.commands import distance_errors
from benchmarks.other_libraries import DISTANCES, MAPS, OURS, PEERS, Peer
from benchmarks.timing import Row
from tests.benchmarks.test_benchmarks import rows_of, run_benchmark

LIBRARIES = {peer.library: peer.path.partition(".")[0] for peer in PEERS}


@pytest.mark.slow
@pytest.mark.parametrize(
    "part", [*(f"{library}: " for library in LIBRARIES if library != OURS), f"{OURS}: metric"]
)
def test_a_library_runs(part: str, tmp_path: Path) -> None:
    chosen = [peer for peer in PEERS if part in peer.label]
    pytest.importorskip(LIBRARIES[chosen[0].library])
    printed = run_benchmark(tmp_path, "peers", "--sizes", "16", "--cases", part)
    assert "## peers\n" in printed
    rows = tables.read_rows(tmp_path / "peers.csv")
    assert {r["case"] for r in rows} == {peer.label for peer in chosen}
    timed = [r for r in rows if r["direction"].startswith("forward")]
    assert all(r["median_s"] and r["unit_median_s"] and not r["note"] for r in timed)
    assert {f.name for f in tmp_path.iterdir()} >= {"peers.csv", "peers.png"}
    losses = {peer.label for peer in chosen if peer.gradients}
    if losses:
        found = tables.read_rows(tmp_path / "robustness.csv")
        assert {r["case"] for r in found} == losses
        masks = [r for r in found if r["check"] in ("empty mask", "full mask")]
        assert {r["verdict"] for r in masks} <= {"ok", "gradient 0"}
        assert "## robustness\n" in printed


def without(library: str, monkeypatch: pytest.MonkeyPatch) -> None:
    class Absent:
        def find_spec(self, name: str, *_: object) -> None:
            if name.partition(".")[0] == library:
                raise ModuleNotFoundError(f"No module named {name!r}", name=library)

    for module in [m for m in sys.modules if m.partition(".")[0] == library]:
        monkeypatch.delitem(sys.modules, module)
    monkeypatch.setattr(sys, "meta_path", [Absent(), *sys.meta_path])


def test_a_missing_library_is_reported_with_its_reason(monkeypatch: pytest.MonkeyPatch) -> None:
    without("kornia", monkeypatch)
    loaded, missing = other_libraries.load(("kornia: dice", "scipy"))
    assert {peer.library for peer, _ in loaded} == {"scipy"}
    ((peer, reason),) = missing
    assert (peer.label, reason) == ("kornia: dice", "not installed: pip install -e .[peers]")


def test_without_any_library_the_command_says_what_to_install(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    without("kornia", monkeypatch)
    without("monai", monkeypatch)
    with pytest.raises(SystemExit, match=r"kornia, MONAI.*pip install -e \.\[peers\]"):
        other_libraries.load(("kornia", "MONAI", "ours: metric"))


def test_global_settings_that_a_library_changes_are_restored() -> None:
    threads, dtype = torch.get_num_threads(), torch.get_default_dtype()
    with other_libraries.isolated():
        warnings.warn("theirs", stacklevel=1)
        torch.set_num_threads(threads + 1)
        torch.set_default_dtype(torch.float64)
        torch.set_grad_enabled(False)
        np.seterr(all="raise")
    assert torch.get_num_threads() == threads
    assert torch.get_default_dtype() == dtype
    assert torch.is_grad_enabled()
    assert np.geterr()["under"] == "ignore"


def foreground_mean(logits, target):
    return -(logits.sigmoid() * target).sum() / target.sum()


def batch_dice(logits, target):
    p = logits.sigmoid()
    return 1 - 2 * (p * target).sum() / (p.sum() + target.sum())


def overlap(logits, target):
    return 1 - (logits.sigmoid() * target).mean()


def in_float32(logits, target):
    return torch.nn.functional.binary_cross_entropy_with_logits(logits.float(), target.float())


def half_gradient(logits, target):
    p = logits.sigmoid()
    return ((p - target) * (p - target).detach()).mean()


def branching(logits, target):
    difference = (logits.sigmoid() - target).abs().mean()
    return difference if difference > 0 else 0 * difference


def raising(logits, target):
    raise ValueError("first line\nsecond line")


def verdicts(framework: str, path: str, quick: bool = True) -> dict[str, robustness.Finding]:
    peer = Peer(MAPS, framework, "theirs", path, path, ("logits", "target"))
    return {f.check: f for f in robustness.findings(peer, peer.load(), 0, quick)}


@pytest.mark.slow
@pytest.mark.parametrize(
    ("framework", "path"),
    [
        ("torch", "torch.nn.functional.binary_cross_entropy_with_logits"),
        ("jax", "optax.losses.sigmoid_binary_cross_entropy"),
    ],
)
def test_cross_entropy_passes_every_check(framework: str, path: str) -> None:
    found = verdicts(framework, path, quick=False)
    assert {check: f.verdict for check, f in found.items()} == dict.fromkeys(found, "ok")
    assert len(found) == len(robustness.CHECKS)


@pytest.mark.parametrize(
    ("loss", "check", "verdict"),
    [
        ("foreground_mean", "empty mask", "no"),
        ("overlap", "empty mask", "gradient 0"),
        ("batch_dice", "float16", "no"),
        ("in_float32", "float64, finite differences", "no"),
        ("half_gradient", "float64, finite differences", "no"),
        ("batch_dice", "batch = mean of images", "no"),
        ("branching", "vmap", "error"),
        ("batch_dice", "p = t is a minimum", "no"),
        ("raising", "full mask", "error"),
    ],
)
def test_a_fault_is_found(
    loss: str, check: str, verdict: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(robustness, "CHECKS", {check: robustness.CHECKS[check]})
    assert verdicts("torch", f"{__name__}.{loss}", quick=False)[check].verdict == verdict


@pytest.mark.slow
def test_a_loss_that_does_not_compile_in_one_graph_is_found(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    check = "compiled in one graph"
    monkeypatch.setattr(robustness, "CHECKS", {check: robustness.CHECKS[check]})
    assert verdicts("torch", f"{__name__}.branching", quick=False)[check].verdict == "error"


def test_an_error_keeps_its_first_line() -> None:
    note = verdicts("torch", f"{__name__}.raising")["vmap"].note
    assert note == "ValueError: first line"


def squared_distances(foreground):
    from scipy.ndimage import distance_transform_edt

    return distance_transform_edt(~foreground) ** 2


def test_distance_errors_are_those_from_the_exact_distances() -> None:
    ours = next(p for p in PEERS if p.group == DISTANCES and p.framework == "torch")
    wrong = Peer(
        DISTANCES,
        "numpy",
        "theirs",
        "squares",
        f"{__name__}.squared_distances",
        ("foreground",),
        gradient_count=0,
        per_image=True,
    )
    assert [r.difference < 1e-5 for r in distance_errors(ours, ours.load(), 0)] == [True] * 3
    assert [r.difference > 10 for r in distance_errors(wrong, wrong.load(), 0)] == [True] * 3


def test_peers_table_sets_multiples_beside_copies_and_errors() -> None:
    def row(case: str, backend: str, seconds: float, size: int = 64) -> Row:
        return Row(
            case,
            backend,
            "forward",
            size,
            1,
            item=DISTANCES,
            median_s=seconds,
            unit="torch BCE",
            unit_median_s=0.002,
        )

    slow = row("theirs: brute force", "torch eager", 0.0, 512)
    slow.median_s, slow.unit_median_s, slow.note = None, None, "skipped: too long"
    copy = Row("theirs: brute force", "x.clone()", "", 64, item=DISTANCES, median_s=1e-5)
    error = Row(
        "theirs: brute force",
        "torch eager",
        f"{tables.ERROR}48 × 96",
        item=DISTANCES,
        difference=18.0,
    )
    rows = rows_of(
        row("ours: exact", "jax.jit", 0.001),
        row("theirs: brute force", "torch eager", 0.1),
        slow,
        copy,
        error,
    )
    lines = tables.peers_tables(rows).splitlines()
    assert lines[0] == "### Distance transform, one image (multiples of PyTorch's BCE)"
    assert "| ours: exact | jax.jit | 0.500 (1.00) | – | failed |" in lines
    assert "| theirs: brute force | torch eager | 50.0 (100; 10,000) | – | 18 |" in lines
    assert tables.notes(rows) == "- theirs: brute force, torch eager, 512²: skipped: too long.\n"


def test_robustness_table_makes_failures_bold_and_lists_messages() -> None:
    rows = [
        {
            "case": "theirs: dice",
            "framework": "PyTorch",
            "check": check,
            "size": size,
            "verdict": verdict,
            "note": note,
        }
        for check, size, verdict, note in (
            ("empty mask", "32", "ok", ""),
            ("float16", "512", "no", "loss nan"),
            ("vmap", "32", "error", "RuntimeError: no"),
        )
    ] + [
        {
            "case": "others: dice",
            "framework": "PyTorch",
            "check": "",
            "size": "",
            "verdict": "",
            "note": "not installed: pip install -e .[peers]",
        }
    ]
    assert tables.robustness_table(rows).splitlines()[2:] == [
        "| theirs: dice, PyTorch | ok | **no** | **error** |",
        "",
        "Sizes of the images: 32² (empty mask; vmap), 512² (float16).",
    ]
    assert tables.robustness_notes(rows).splitlines() == [
        "- theirs: dice, PyTorch, float16: loss nan",
        "- theirs: dice, PyTorch, vmap: RuntimeError: no",
        "- others: dice, PyTorch: not installed: pip install -e .[peers]",
    ]
