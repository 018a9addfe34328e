"""How Sphinx builds these pages; what is read out of the program comes from `reference`."""

import sys
from pathlib import Path
from typing import Final

from pygments.lexer import RegexLexer
from pygments.token import Comment, Keyword, Name, Number, Operator, String, Text
from sphinx.application import Sphinx

HERE: Final = Path(__file__).parent
sys.path[:0] = [str(HERE), str(HERE.parent)]

import reference  # noqa: E402 - found through the line above

import trioproxy  # noqa: E402 - as above

project = "trioproxy"
author = "The trioproxy authors"
copyright = author  # noqa: A001 - the name that Sphinx wants
version = release = trioproxy.__version__

extensions = ["myst_parser"]
source_suffix = {".md": "markdown"}
exclude_patterns = ["_build", "plugin-example"]
myst_enable_extensions = ["colon_fence", "deflist"]
myst_heading_anchors = 4
nitpicky = True

html_theme = "furo"
html_title = f"trioproxy {release}"
html_static_path = ["_static"]
html_css_files = ["trioproxy.css"]
html_show_copyright = False
html_show_sphinx = False
html_copy_source = False
pygments_style = "friendly"
pygments_dark_style = "monokai"


class RuleLexer(RegexLexer):
    """Colours for rules, alone or in the file of `policy export`."""

    name = "rules"
    tokens = {  # noqa: RUF012 - as the base class has it
        "root": [
            (r"#.*$", Comment),
            (r"^\[[^\]]*\]", Name.Namespace),
            (r"\b(allow|deny)\b", Keyword),
            (r"\b(tcp|udp|bind|any)(?=:)", Keyword.Type),
            (r"->", Operator),
            (r"\b(user|group|log|note)(=)", Name.Attribute),
            (r'"(?:[^"\\]|\\.)*"', String),
            (r"\((?:[^()]*)\)", Number),
            (r"\s+", Text),
            (r".", Text),
        ]
    }


def _fill_in(_app: Sphinx, _name: str, source: list[str]) -> None:
    """Put what is read out of the program where a page says `% generated: WHAT`."""
    source[0] = reference.fill_in(source[0])


def setup(app: Sphinx) -> dict[str, bool]:
    """Called by Sphinx."""
    app.add_lexer("rules", RuleLexer)
    app.add_lexer("policy", RuleLexer)
    app.connect("source-read", _fill_in)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
