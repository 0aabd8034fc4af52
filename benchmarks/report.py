"""`python -m benchmarks.report RESULTS.json [--write docs/PERFORMANCE.md]`: the tables of a run, here or in a document.

In a document each table stands between `<!-- bench:KEY:begin -->` and `<!-- bench:KEY:end -->`.
"""

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import tyro
from rich.console import Console
from rich.markup import escape
from rich.table import Table as Shown

from benchmarks.goals import Results
from benchmarks.tables import Table, tables
from moejax.types import UserError


def show(results: Results, console: Console | None = None) -> None:
    """All tables on a terminal."""
    console = console or Console()
    console.print(about(results), highlight=False, markup=False)
    for table in tables(results):
        heads = map(escape, table.heads)
        shown = Shown(*heads, title=escape(table.title), caption=escape(table.note), title_justify="left")
        for line in table.rows:
            shown.add_row(*map(escape, line))
        console.print(shown)


def about(results: Mapping[str, Any]) -> str:
    """Date, machine, versions."""
    versions = ", ".join(f"{name} {number}" for name, number in results["versions"].items())
    flops, moved = (results["rates"][name] / 1e9 for name in ("flops", "bytes"))
    return (
        f"{results['date']}: {results['processor']}, {results['cores']} cores, {flops:.0f} GFLOP/s and "
        f"{moved:.1f} GB/s reached; {versions}; {results['seconds'] / 60:.1f} minutes"
    )


def markdown(table: Table) -> str:
    """A table as Markdown."""
    heads = [_line(table.heads), _line(["---", *["---:"] * (len(table.heads) - 1)])]
    return "\n".join([*heads, *map(_line, table.rows), "", table.note]).strip() + "\n"


def _line(cells: Any) -> str:
    return "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |"


def written(text: str, results: Results) -> str:
    """The document with its tables replaced. Raises UserError naming a table for which it has no place."""
    parts = {"about": about(results) + "\n"} | {table.key: markdown(table) for table in tables(results)}
    for key, part in parts.items():
        begin, end = (f"<!-- bench:{key}:{side} -->" for side in ("begin", "end"))
        pattern = re.compile(f"{re.escape(begin)}.*?{re.escape(end)}", re.DOTALL)
        if not pattern.search(text):
            raise UserError(f"the document has no place for the table {key!r}: put {begin} and {end} into it")
        text = pattern.sub(lambda _, block=f"{begin}\n{part}{end}": block, text)
    return text


@dataclass(frozen=True)
class Config:
    """What to show, and where."""

    results: Annotated[Path, tyro.conf.Positional]
    """The JSON of a run."""
    write: Path | None = None
    """A document whose tables are replaced; None: print them."""


def main(config: Config) -> None:
    """Print the tables or put them into a document."""
    results = json.loads(config.results.read_text(encoding="utf-8"))
    if config.write is None:
        show(results)
    else:
        text = config.write.read_text(encoding="utf-8")
        config.write.write_text(written(text, results), encoding="utf-8")


if __name__ == "__main__":
    main(tyro.cli(Config))
