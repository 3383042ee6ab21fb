"""The package's Jinja templates: pages, cards and prompts, each a file beside the module that fills it.

Owns how a template is read. Does not own what is filled in. A missing value is an error, never an empty string.

    load(Path(__file__).with_name("report.html.j2")).render(title="Demo")
"""

from __future__ import annotations

import hashlib
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from jinja2 import Template


@cache
def load(file: Path) -> Template:
    """Return a template. `.html.j2` escapes what is filled in; there and in `.md.j2` a line that is only a block leaves
    no line. Any other file is a prompt, where each character counts."""
    from jinja2 import Environment, StrictUndefined

    html = file.name.endswith(".html.j2")
    trim = html or file.name.endswith(".md.j2")
    environment = Environment(
        autoescape=html,
        undefined=StrictUndefined,
        trim_blocks=trim,
        lstrip_blocks=trim,
        keep_trailing_newline=file.name.endswith(".md.j2"),
    )
    return environment.from_string(file.read_text(encoding="utf-8"))


def wording(file: Path) -> tuple[Template, str]:
    """Return a prompt's template and its version, a hash of its text."""
    return load(file), hashlib.sha256(file.read_text(encoding="utf-8").encode()).hexdigest()[:12]
