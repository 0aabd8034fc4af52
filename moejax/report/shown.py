"""A part of the report by itself, as a notebook shows it below a cell."""

import re
from dataclasses import dataclass

from moejax.report.html import Html, tag
from moejax.report.style import sheet

WITHIN = "&{margin:0;padding:.5rem 1rem}"  # below a cell less room is left than on a page


@dataclass(frozen=True)
class Shown:
    """Shows as `part` in Jupyter and Colab, with the report's style sheet, which touches nothing else there."""

    part: Html

    def _repr_html_(self) -> str:
        """The rules of the sheet nested in one class: what holds for the page holds for the part's own box."""
        rules = re.sub(r"(?<![\w-])(:root|body)\{", "&{", sheet())
        return tag("style", Html(f".moejax{{{rules}{WITHIN}}}")) + tag("div", self.part, class_="moejax")
