"""The documentation as a site: `make docs` writes it to docs/_build/html/."""

import bignas_tf

project = "bignas_tf"
author = "The bignas_tf authors"
version = release = bignas_tf.__version__
extensions = [
    "myst_parser",
    "sphinx.ext.autodoc",
    "sphinx.ext.napoleon",
    "sphinx_copybutton",
]
exclude_patterns = ["_build"]
html_theme = "furo"
html_title = f"bignas_tf {release}"
html_show_copyright = False
myst_heading_anchors = 3
autodoc_typehints = "none"  # docstrings give shapes and ranges beside types
autodoc_member_order = "bysource"
napoleon_use_ivar = True
napoleon_custom_sections = [("Yields", "returns_style")]
add_module_names = False
default_role = "code"  # docstrings have single backticks, as Markdown


def _at_their_place(app, page, source):
    """Cards lie in zoo/cards/, where people who read the repository look for them."""
    for name in ("BigNASCifar", "BigNASModel"):
        place = f"cards.md#{name.lower()}-s-m-l-xl"
        source[0] = source[0].replace(f"](../zoo/cards/{name}.md)", f"]({place})")


def setup(app):
    """Connects what Sphinx has no setting for."""
    app.connect("source-read", _at_their_place)
