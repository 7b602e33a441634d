"""The package as a user finds it: imports, names, signatures, types, documentation, files."""

import ast
import inspect
import re
import subprocess
import sys
import tarfile
import tomllib
import zipfile
from email import message_from_bytes
from email.message import Message
from importlib import metadata
from operator import attrgetter
from pathlib import Path
from types import ModuleType
from typing import Any, Literal, get_args, get_origin, get_type_hints

import pytest

import saliency_losses
import saliency_losses.jax
import saliency_losses.jax.measures
import saliency_losses.jax.metrics
import saliency_losses.reference
import saliency_losses.torch
import saliency_losses.torch.measures
import saliency_losses.torch.metrics
from saliency_losses.torch import functional, modules, supervision
from tests.support.paths import ROOT as PROJECT

ROOT = Path(saliency_losses.__file__).parent
BACKENDS = (saliency_losses.torch, saliency_losses.jax)
FUNCTIONS = list(saliency_losses.jax.__all__)
# It hands further arguments on to any loss.
WITH_ARGUMENTS = "deep_supervision"
MODULES = [name for name in saliency_losses.torch.__all__ if name not in FUNCTIONS]

MEASURES = [
    f"measures.{name}"
    for name, x in vars(saliency_losses.jax.measures).items()
    if getattr(x, "__module__", "") == "saliency_losses.jax.measures"
]

each_function = pytest.mark.parametrize("name", [*FUNCTIONS, *MEASURES])
each_backend = pytest.mark.parametrize("backend", BACKENDS, ids=["torch", "jax"])


# Imports


def imported(statement: str) -> set[str]:
    """The top-level packages that a fresh process holds after `statement`."""
    program = f"import sys; {statement}; print(*{{name.split('.')[0] for name in sys.modules}})"
    result = subprocess.run(
        [sys.executable, "-c", program], text=True, capture_output=True, check=True, cwd=ROOT.parent
    )
    return set(result.stdout.split())


@pytest.mark.parametrize(
    ("statement", "present", "absent"),
    [
        ("import saliency_losses", {"saliency_losses"}, {"torch", "jax", "numpy"}),
        ("import saliency_losses.core", {"saliency_losses"}, {"torch", "jax", "numpy"}),
        (
            "from saliency_losses.core import anchor, cas, fbeta, metric, mutual_information",
            {"saliency_losses"},
            {"torch", "jax", "numpy"},
        ),
        ("import saliency_losses.reference", {"numpy"}, {"torch", "jax", "scipy"}),
        ("import saliency_losses.torch", {"torch"}, {"jax", "flax", "optax", "torchmetrics"}),
        ("import saliency_losses.jax", {"jax"}, {"torch", "flax", "optax"}),
        ("import saliency_losses.torch.metrics", {"torchmetrics"}, {"jax", "flax"}),
        ("import saliency_losses.jax.metrics", {"flax"}, {"torch", "torchmetrics"}),
    ],
)
def test_an_import_brings_in_no_other_framework(
    statement: str, present: set[str], absent: set[str]
) -> None:
    found = imported(statement)
    assert present <= found
    assert not absent & found


def imports_of(file: Path) -> set[str]:
    """Every module named in an import statement of a file, wherever it stands."""
    names = set()
    for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{file}: a relative import"
            names |= {f"{node.module}.{alias.name}" for alias in node.names}
    return names


@pytest.mark.parametrize(
    ("folder", "allowed", "of_files"),
    [
        ("core", ("saliency_losses.core",), {}),
        (
            "torch",
            ("torch", "saliency_losses.core", "saliency_losses.torch"),
            {"metrics": ("torchmetrics",), "_scipy": ("numpy", "scipy")},
        ),
        (
            "jax",
            ("jax", "numpy", "saliency_losses.core", "saliency_losses.jax"),
            {"metrics": ("flax",)},
        ),
    ],
)
def test_imports_go_one_way(
    folder: str, allowed: tuple[str, ...], of_files: dict[str, tuple[str, ...]]
) -> None:
    """of_files: What some files may import besides, by their names."""
    files = sorted((ROOT / folder).glob("**/*.py"))
    assert files
    for file in files:
        for name in imports_of(file):
            first = name.split(".")[0]
            ours = first in sys.stdlib_module_names or any(
                name == a or name.startswith(a + ".") for a in allowed + of_files.get(file.stem, ())
            )
            assert ours, f"{file.name} imports {name}"


@pytest.mark.slow
def test_imports_form_no_circle_and_few_floors(tmp_path: Path) -> None:
    command = [sys.executable, "docs/figures/architecture.py", str(tmp_path / "picture.png")]
    result = subprocess.run(command, text=True, capture_output=True, check=False, cwd=PROJECT)
    assert result.returncode == 0, result.stdout + result.stderr
    assert "no circle" in result.stdout
    assert max(map(int, re.findall(r"^floor (\d+)", result.stdout, re.MULTILINE))) < 7
    assert (tmp_path / "picture.png").is_file()


def test_the_references_share_no_code_with_the_losses() -> None:
    names = imports_of(ROOT / "reference.py")
    assert not any(name.startswith("saliency_losses") for name in names)


# Names


def defined(module: ModuleType) -> set[str]:
    """The public functions and classes that a module itself defines."""
    return {
        name
        for name, x in vars(module).items()
        if not name.startswith("_")
        and getattr(x, "__module__", "") == module.__name__
        and (inspect.isfunction(x) or inspect.isclass(x))
    }


def test_all_is_complete() -> None:
    of_several = defined(supervision)
    assert set(FUNCTIONS) == defined(functional) | {WITH_ARGUMENTS}
    assert set(FUNCTIONS) == defined(saliency_losses.jax.functional) | defined(
        saliency_losses.jax.supervision
    )
    assert set(MODULES) == defined(modules) | of_several - {WITH_ARGUMENTS}
    assert set(saliency_losses.torch.__all__) == defined(functional) | defined(modules) | of_several
    for backend in BACKENDS:
        assert backend.__all__ == sorted(backend.__all__)
        assert all(hasattr(backend, name) for name in backend.__all__)


def test_all_names_that_are_imported_are_public() -> None:
    for backend in BACKENDS:
        names = {
            alias.asname or alias.name
            for node in ast.parse(inspect.getsource(backend)).body
            if isinstance(node, ast.ImportFrom)
            for alias in node.names
        }
        assert names == set(backend.__all__)


# Signatures

SOURCES = {
    "saliency_losses.torch": ("torch/functional.py", "torch/modules.py", "torch/supervision.py"),
    "saliency_losses.torch.measures": ("torch/measures.py",),
    "saliency_losses.torch.metrics": ("torch/metrics.py",),
    "saliency_losses.jax": ("jax/functional.py", "jax/supervision.py"),
    "saliency_losses.jax.measures": ("jax/measures.py",),
    "saliency_losses.jax.metrics": ("jax/metrics.py",),
    "saliency_losses.reference": ("reference.py",),
    "saliency_losses.plotting": ("plotting.py",),
}


def public_api() -> list[str]:
    """Every public name with its signature as written, whatever a framework makes of it."""

    def signature(name: str, function: ast.FunctionDef) -> str:
        returns = ast.unparse(function.returns) if function.returns else "?"
        return f"{module}.{name}({ast.unparse(function.args)}) -> {returns}"

    lines = []
    for module, files in SOURCES.items():
        for node in (n for file in files for n in ast.parse((ROOT / file).read_bytes()).body):
            if isinstance(node, ast.Assign):
                lines.append(f"{module}.{ast.unparse(node)}")
            elif isinstance(node, ast.FunctionDef):
                lines.append(signature(node.name, node))
            elif isinstance(node, ast.ClassDef):
                lines += [
                    signature(f"{node.name}.{method.name}", method)
                    for method in node.body
                    if isinstance(method, ast.FunctionDef)
                ]
    return [line for line in lines if not re.match(r"[\w.]*\._(?!_init__)", line)]


def test_the_public_api_is_as_written_down() -> None:
    """A change of it is made on purpose: in the file, and in the changelog."""
    written = (
        (PROJECT / "tests" / "support" / "public_api.txt").read_text(encoding="utf-8").splitlines()
    )
    assert public_api() == written


@each_function
def test_both_backends_have_the_same_signature(name: str) -> None:
    ours, theirs = (
        inspect.signature(attrgetter(name)(backend)).parameters.values() for backend in BACKENDS
    )
    assert [p.name for p in ours] == [p.name for p in theirs]
    assert [p.kind for p in ours] == [p.kind for p in theirs]
    assert [(p.default, type(p.default)) for p in ours] == [
        (p.default, type(p.default)) for p in theirs
    ]


def annotations(function: Any) -> dict[str, str]:
    """The types, with "array" and "rng" for those of the framework."""

    def neutral(hint: Any) -> str:
        text = str(hint) if not isinstance(hint, type) else f"{hint.__module__}.{hint.__name__}"
        return re.sub(r"(\w+\.)+(Tensor|Array|ArrayImpl)\b", "array", text)

    hints = {k: neutral(v) for k, v in get_type_hints(function).items()}
    return {k: "rng" if k == "rng" else v for k, v in hints.items()}


@each_function
def test_both_backends_have_the_same_types(name: str) -> None:
    ours, theirs = (annotations(attrgetter(name)(backend)) for backend in BACKENDS)
    assert ours == theirs
    parameters = inspect.signature(attrgetter(name)(saliency_losses.torch)).parameters
    assert set(ours) == {*parameters, "return"}


@each_function
def test_options_are_keyword_only_and_inputs_positional(name: str) -> None:
    parameters = list(
        inspect.signature(attrgetter(name)(saliency_losses.torch)).parameters.values()
    )
    assert all(p.default is p.empty for p in parameters if p.kind is not p.KEYWORD_ONLY)
    assert all(p.default is not p.empty for p in parameters if p.kind is p.KEYWORD_ONLY)
    assert not any(p.kind is p.VAR_POSITIONAL for p in parameters)
    assert any(p.kind is p.VAR_KEYWORD for p in parameters) == (name == WITH_ARGUMENTS)


# Types


@pytest.mark.slow
def test_mypy_passes_a_users_file() -> None:
    result = subprocess.run(
        [sys.executable, "-m", "mypy", "--strict", "tests/support/typed_use.py"],
        text=True,
        capture_output=True,
        check=False,
        cwd=PROJECT,
    )
    assert result.returncode == 0, result.stdout + result.stderr


@pytest.mark.parametrize(
    ("alias", "module"),
    [
        ("st", "saliency_losses.torch"),
        ("sj", "saliency_losses.jax"),
        ("stu", "saliency_losses.torch.measures"),
        ("sju", "saliency_losses.jax.measures"),
        ("stm", "saliency_losses.torch.metrics"),
        ("sjm", "saliency_losses.jax.metrics"),
        ("sr", "saliency_losses.reference"),
    ],
)
def test_the_users_file_uses_every_name(alias: str, module: str) -> None:
    used = (PROJECT / "tests" / "support" / "typed_use.py").read_text(encoding="utf-8")
    names = re.findall(
        rf"^{re.escape(module)}\.(?!metrics\.|measures\.)(\w+)[.(]",
        "\n".join(public_api()),
        re.MULTILINE,
    )
    assert names
    assert set(names) == set(re.findall(rf"\b{alias}\.(\w+)\(", used)) | set(
        re.findall(rf"\b{alias}\.(\w+)\)\(", used)
    )


# Documentation

SECTIONS = ["Args", "Returns", "Raises", "Example", "References", "Convention"]


def sections(doc: str) -> dict[str, str]:
    """The sections of a docstring by their headings; what comes before them under ""."""
    parts = re.split(r"^(\w+):$", inspect.cleandoc(doc), flags=re.MULTILINE)
    return {"": parts[0], **dict(zip(parts[1::2], parts[2::2], strict=True))}


@each_backend
@each_function
def test_every_function_is_documented(backend: ModuleType, name: str) -> None:
    function = attrgetter(name)(backend)
    found = sections(function.__doc__)
    first, blank, *_ = [*found[""].splitlines(), "", ""]
    assert first.endswith(".")
    assert len(first) <= 100
    assert not blank
    assert [s for s in found if s] == [s for s in SECTIONS if s in found]
    assert set(SECTIONS[:5]) <= set(found)
    described = re.findall(r"^    (\w+): ", found["Args"], flags=re.MULTILINE)
    assert described == list(inspect.signature(function).parameters)
    assert re.search(r"^    (ValueError|TypeError): ", found["Raises"], flags=re.MULTILINE)
    own = function.__name__
    assert re.search(rf">>> from {backend.__name__}.* import .*\b{own}\b", found["Example"])
    assert f"{own}(" in found["Example"]
    assert re.search(r" (19|20)\d\d", found["References"])
    if name in FUNCTIONS:
        assert re.search(r"(IJCAI|ICCV|CVPR|AAAI) 20\d\d", found["References"])
        assert re.search(r"(eq\. |§)\d", found["References"])


@each_function
def test_the_documented_options_are_those_of_the_signature(name: str) -> None:
    """Each choice of an option is named where the option is described."""
    function = attrgetter(name)(saliency_losses.torch)
    args = sections(function.__doc__)["Args"]
    entries = dict(
        re.findall(r"^    (\w+): (.*?)(?=^    \w+: |\Z)", args, flags=re.MULTILINE | re.DOTALL)
    )
    for option, hint in get_type_hints(function).items():
        for value in get_args(hint) if get_origin(hint) is Literal else ():
            assert value in entries[option].lower() or "As in `" in entries[option], value


@pytest.mark.parametrize("name", MODULES)
def test_every_module_refers_to_its_function(name: str) -> None:
    doc = sections(getattr(saliency_losses.torch, name).__doc__)
    (function,) = re.findall(r"See `(\w+)`\.", doc[""])
    assert function in FUNCTIONS
    assert function.replace("_", "") == name.lower()
    assert list(doc) == ["", "Example"]
    assert re.search(rf">>> from saliency_losses.torch import .*\b{name}\b", doc["Example"])
    assert f"{name}(" in doc["Example"]


@pytest.mark.parametrize(
    "module",
    [
        saliency_losses,
        saliency_losses.core,
        saliency_losses.reference,
        *BACKENDS,
        functional,
        modules,
        supervision,
        saliency_losses.torch.measures,
        saliency_losses.torch.metrics,
        saliency_losses.jax.functional,
        saliency_losses.jax.supervision,
        saliency_losses.jax.measures,
        saliency_losses.jax.metrics,
    ],
    ids=lambda m: m.__name__,
)
def test_every_module_file_has_a_docstring(module: ModuleType) -> None:
    first = (module.__doc__ or "").splitlines()[0]
    assert first.endswith((".", ";"))


@pytest.mark.parametrize(
    ("package", "modules"),
    [
        (
            "saliency_losses.torch",
            ("functional", "modules", "supervision", "measures", "metrics"),
        ),
        ("saliency_losses.jax", ("functional", "supervision", "measures", "metrics")),
    ],
)
def test_examples_run(package: str, modules: tuple[str, ...]) -> None:
    # In a process of its own: the suite's settings change what JAX prints.
    program = f"""
import doctest, importlib
finder, runner = doctest.DocTestFinder(recurse=False), doctest.DocTestRunner()
for own in {[f"{package}.{module}" for module in modules]}:
    module = importlib.import_module(own)
    names = [n for n, x in vars(module).items()
             if not n.startswith("_") and getattr(x, "__module__", "") == own]
    for name in names:
        (test,) = finder.find(getattr(module, name), f"{{own}}.{{name}}")
        # Each on its own, so that an example imports what it needs.
        test.globs = {{}}
        assert len(test.examples) >= 3, name
        runner.run(test)
    assert names, own
raise SystemExit(runner.failures)
"""
    result = subprocess.run(
        [sys.executable, "-W", "error", "-c", program],
        text=True,
        capture_output=True,
        check=False,
        cwd=ROOT.parent,
    )
    assert result.returncode == 0, result.stdout + result.stderr


# What a PyTorch user and a JAX user must read differently, in the words of the JAX docstrings.
WORDS = [
    (r"\(N, (\w+), \*spatial\)", r"(N, *spatial, \1)"),
    (r"\(N, K, H, W\)", "(N, H, W, K)"),
    (r"\(N, K, D, H, W\)", "(N, D, H, W, K)"),
    (r"A `torch\.Generator` on the device of the labels\.", "A JAX random key."),
    (r"`rng` not a generator", "`rng` not a key"),
]


def normalised(doc: str) -> dict[str, str]:
    """A docstring without its example, layouts channels last, and line breaks forgotten."""
    found = {k: " ".join(v.split()) for k, v in sections(doc).items() if k != "Example"}
    for pattern, replacement in WORDS:
        found = {k: re.sub(pattern, replacement, v) for k, v in found.items()}
    return found


@each_function
def test_both_backends_are_documented_alike(name: str) -> None:
    ours, theirs = (normalised(attrgetter(name)(backend).__doc__) for backend in BACKENDS)
    assert ours == theirs


@each_function
def test_layouts_are_those_of_the_backend(name: str) -> None:
    of_torch, of_jax = (attrgetter(name)(backend).__doc__ for backend in BACKENDS)
    assert not re.search(r"\*spatial, \w", of_torch)
    assert not re.search(r"\(N, [A-Z], \*spatial", of_jax)
    assert "jax" not in of_torch.lower()
    assert "torch" not in of_jax.lower()


# Packaging


def test_version() -> None:
    version = saliency_losses.__version__
    assert re.fullmatch(r"\d+\.\d+\.\d+(\.dev\d+|(a|b|rc)\d+)?", version)
    try:
        installed = metadata.version("saliency-losses")
    except metadata.PackageNotFoundError:
        pytest.skip("not installed")
    assert installed == version


def test_changelog_and_citation_have_the_version() -> None:
    changelog, citation = (
        (PROJECT / name).read_text(encoding="utf-8") for name in ("CHANGELOG.md", "CITATION.cff")
    )
    version, date = re.findall(r"^## (\d\S*) - (\S+)$", changelog, re.MULTILINE)[0]
    assert version == saliency_losses.__version__
    assert re.findall(r"^version: (\S+)$", citation, re.MULTILINE) == [version]
    assert re.findall(r"^date-released: (\S+)$", citation, re.MULTILINE) == [date]


@pytest.fixture(scope="module")
def distributions(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The sdist, and the wheel built from it."""
    folder = tmp_path_factory.mktemp("dist")
    result = subprocess.run(
        [sys.executable, "-m", "build", "--no-isolation", "--outdir", str(folder)],
        text=True,
        capture_output=True,
        check=False,
        cwd=PROJECT,
    )
    assert result.returncode == 0, result.stdout + result.stderr
    return folder


def wheel_contents(distributions: Path) -> tuple[set[str], Message]:
    (file,) = distributions.glob("*.whl")
    with zipfile.ZipFile(file) as wheel:
        names = set(wheel.namelist())
        (about,) = [name for name in names if name.endswith(".dist-info/METADATA")]
        return names, message_from_bytes(wheel.read(about))


@pytest.mark.slow
def test_the_wheel_holds_the_package_alone(distributions: Path) -> None:
    names, _ = wheel_contents(distributions)
    ours = {str(file.relative_to(ROOT.parent)) for file in ROOT.rglob("*.py")}
    about = f"saliency_losses-{saliency_losses.__version__}.dist-info"
    assert names == ours | {"saliency_losses/py.typed"} | {
        f"{about}/{name}" for name in ("METADATA", "WHEEL", "RECORD", "licenses/LICENSE")
    }


@pytest.mark.slow
def test_the_wheels_metadata(distributions: Path) -> None:
    _, about = wheel_contents(distributions)
    project = tomllib.loads((PROJECT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    assert about["Name"] == "saliency-losses"
    assert about["Version"] == saliency_losses.__version__
    assert about["License-Expression"] == "MIT"
    assert about["Requires-Python"] == project["requires-python"]
    assert about["Description-Content-Type"] == "text/markdown"
    readme = (PROJECT / "README.md").read_bytes().decode()
    assert about.get_payload(decode=True).decode().strip() == readme.strip()
    needed = [line for line in about.get_all("Requires-Dist", []) if "extra ==" not in line]
    assert needed == project["dependencies"]
    assert set(about.get_all("Provides-Extra", [])) == set(project["optional-dependencies"])


@pytest.mark.slow
def test_the_sdist_holds_what_is_needed_and_no_data(distributions: Path) -> None:
    (file,) = distributions.glob("*.tar.gz")
    with tarfile.open(file) as sdist:
        names = {name.partition("/")[2] for name in sdist.getnames()}
    assert names >= {
        "LICENSE",
        "README.md",
        "CHANGELOG.md",
        "CITATION.cff",
        "pyproject.toml",
        "constraints.txt",
        "docs/losses.md",
        "tests/conftest.py",
        "tests/support/public_api.txt",
        "results/benchmarks/compare.csv",
        "reference_models/train.py",
        "saliency_losses/py.typed",
    }
    kinds = {Path(name).suffix for name in names if not name.startswith("docs/")}
    assert kinds <= {"", ".py", ".md", ".txt", ".toml", ".cff", ".typed", ".csv", ".json", ".png"}
    assert not any(
        name.startswith((".ci", ".github", "data", "runs", "reference_models/weights"))
        for name in names
    )
    assert file.stat().st_size < 8e6


@pytest.mark.slow
def test_a_package_index_takes_both(distributions: Path) -> None:
    result = subprocess.run(
        [sys.executable, "-m", "twine", "check", "--strict", *map(str, distributions.iterdir())],
        text=True,
        capture_output=True,
        check=False,
    )
    assert result.returncode == 0, result.stdout + result.stderr
    assert result.stdout.count("PASSED") == 2
