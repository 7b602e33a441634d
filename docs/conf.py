"""Configuration of the documentation site: ``sphinx-build -W docs build/site``.

The pages are plain Markdown that GitHub shows as well. This file adds what only the site has: the
order of the pages, the examples' source, formulas as MathML, pages for files outside docs, and
pictures that open in full size.
"""

import inspect
import re
from os.path import relpath
from pathlib import Path

from docutils import nodes
from docutils.utils.math.latex2mathml import tex2mathml
from sphinx.application import Sphinx
from sphinx.ext.autodoc.preserve_defaults import update_defvalue
from sphinx.util.inspect import signature, stringify_signature
from sphinx.util.osutil import relative_uri

from saliency_losses import __version__

DOCS = Path(__file__).parent
ROOT = DOCS.parent

project = "saliency-losses"
copyright = "the saliency-losses developers"
version = release = __version__
extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.napoleon"]
html_theme = "furo"
html_title = f"{project} {release}"
html_static_path = ["_static"]
html_css_files = ["site.css"]
html_copy_source = False
html_math_renderer = "mathml"
# Furo's default colours module names like links.
pygments_dark_style = "github-dark"

# Each of these pages includes a file at the top of the repository.
INCLUDED = {"README.md": "overview.md", "CHANGELOG.md": "changelog.md"}
MODULES = {
    "torch": "saliency_losses/torch",
    "jax": "saliency_losses/jax",
    "plotting": "saliency_losses/plotting.py",
    "reference": "saliency_losses/reference.py",
}
exclude_patterns = [
    *(page for file, page in INCLUDED.items() if not (ROOT / file).exists()),
    *(f"api/{name}.md" for name, file in MODULES.items() if not (ROOT / file).exists()),
]

myst_enable_extensions = ["dollarmath"]
myst_fence_as_directive = ["math"]
myst_heading_anchors = 4
default_role = "py:obj"
autodoc_inherit_docstrings = False
autodoc_member_order = "bysource"
autodoc_preserve_defaults = True
autodoc_typehints = "none"
napoleon_numpy_docstring = False
# Napoleon takes text before a colon in Returns for a type.
napoleon_custom_sections = ["Convention", "Returns"]

API = "\n".join(f"api/{name}" for name in MODULES if f"api/{name}.md" not in exclude_patterns)
CHANGELOG = "" if "changelog.md" in exclude_patterns else "changelog"
CONTENTS = f"""
```{{toctree}}
:hidden:

Overview <overview>
choosing
losses
measures
distance
predict
numerics
examples/README
data
reliability
```

```{{toctree}}
:hidden:
:caption: Measurements

results
benchmarks
performance
```

```{{toctree}}
:hidden:
:caption: API

{API}
```

```{{toctree}}
:hidden:
:caption: The project

contributing
releasing
{CHANGELOG}
```
"""
LOSSES = """
```{toctree}
:hidden:

losses/metric
losses/cas
losses/weighted-fbeta
losses/anchors
losses/mutual-information
```
"""


def sources() -> str:
    """Every example in full, PyTorch first, under a heading that is its file's name."""
    names = [
        file.name
        for framework in ("torch", "jax")
        for file in sorted((DOCS / "examples").glob(f"{framework}_*.py"))
    ]
    texts = (
        f"### {name}\n\n```{{literalinclude}} {name}\n:language: python\n```\n" for name in names
    )
    return "\n".join(("\n## Sources\n", *texts))


def linked(text: str, folder: Path, page: Path) -> str:
    """Adapt the links of a file in `folder` for `page`: those that leave the site become paths."""

    def link(match: re.Match[str]) -> str:
        image, label, target = match.groups()
        file, _, anchor = target.partition("#")
        path = (folder / file).resolve()
        if not file or not path.exists():  # a link within the page or to the net, or code
            return match[0]
        if path.parent == ROOT and path.name in INCLUDED:
            path = DOCS / INCLUDED[path.name]
        if not image and DOCS not in path.parents:
            place = path.relative_to(ROOT).as_posix()
            named = place.endswith(label.strip("`"))
            return f"`{place}`" if named else f"{label} (in the repository: `{place}`)"
        if path.parent == DOCS / "examples" and path.suffix == ".py":
            path, anchor = path.with_name("README.md"), path.name.replace(".", "")
        return f"{image}[{label}]({relpath(path, page.parent)}{'#' if anchor else ''}{anchor})"

    return re.sub(r"(!?)\[([^\]]*)\]\(([^)\s]+)\)", link, text)


def read(app: Sphinx, docname: str, source: list[str]) -> None:
    added = {"index": CONTENTS, "losses": LOSSES, "examples/README": sources()}
    page = DOCS / f"{docname}.md"
    source[0] = linked(source[0], page.parent, page) + added.get(docname, "")


def include(app: Sphinx, file: Path, docname: str, content: list[str]) -> None:
    content[0] = linked(content[0], (DOCS / file).resolve().parent, DOCS / f"{docname}.md")
    if docname == "overview":  # the README's title is that of the index
        content[0] = content[0].replace(f"# {project}\n", "# Overview\n", 1)


def open_pictures(app: Sphinx, tree: nodes.document, docname: str) -> None:
    """Link each picture to its file, which shows it in full size."""
    folder = relative_uri(app.builder.get_target_uri(docname), "_images")
    for picture in list(tree.findall(nodes.image)):
        if picture["uri"] in app.env.images and not isinstance(picture.parent, nodes.reference):
            target = f"{folder}/{app.env.images[picture['uri']][1]}"
            link = nodes.reference("", "", internal=True, refuri=target)
            picture.replace_self(link)
            link += picture


def own_signature(
    app: Sphinx, what: str, name: str, thing: type, options: object, shown: str, returned: str
) -> tuple[str, str] | None:
    """The parameters of a class whose metaclass takes any, as Flax's does."""
    if what != "class" or shown != "(*args, **kwargs)":
        return None
    update_defvalue(app, thing.__init__, True)
    own: inspect.Signature = signature(thing.__init__, bound_method=True)
    return stringify_signature(own, show_annotation=False), ""


def escape_bars(
    app: Sphinx, what: str, name: str, thing: object, options: object, lines: list[str]
) -> None:
    """Escape |S|, a size in the docstrings, which reStructuredText takes for a substitution."""
    literal = None
    for i, line in enumerate(lines):
        depth = len(line) - len(line.lstrip())
        if literal is not None and line.strip() and depth <= literal:
            literal = None
        if literal is None:
            lines[i] = line.replace("|", r"\|")
            if line.rstrip().endswith("::"):
                literal = depth


def mathml(formula: str, as_block: bool = False) -> str:
    """The formula with bars that open or close: browsers take others for operators in between."""
    text = tex2mathml(formula, as_block=as_block)
    text = re.sub('<mo class="mathopen">([|‖])', r'<mo form="prefix" stretchy="false">\1', text)
    return re.sub("<mo>([|‖])", r'<mo form="postfix" stretchy="false">\1', text)


def inline_math(translator: nodes.NodeVisitor, node: nodes.math) -> None:
    translator.body.append(mathml(node.astext()))
    raise nodes.SkipNode


def block_math(translator: nodes.NodeVisitor, node: nodes.math_block) -> None:
    formula = mathml(node.astext(), as_block=True)
    style = "overflow: auto hidden; padding: 0.3em 0"
    translator.body.append(f'<div class="math" style="{style}">{formula}</div>\n')
    raise nodes.SkipNode


def setup(app: Sphinx) -> dict[str, bool]:
    # Browsers draw MathML themselves: no script, no fonts, nothing from the net.
    app.add_html_math_renderer("mathml", (inline_math, None), (block_math, None))
    app.connect("source-read", read)
    app.connect("include-read", include)
    app.connect("doctree-resolved", open_pictures)
    app.connect("autodoc-process-signature", own_signature)
    # After napoleon, of priority 500, has turned the sections into fields.
    app.connect("autodoc-process-docstring", escape_bars, priority=900)
    return {"parallel_read_safe": True}
