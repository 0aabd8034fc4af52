"""`python generate.py --base FOLDER --experts FOLDER --method arrow "PROMPT"`: an answer, from the shell."""

import json
import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from functools import partial
from typing import Annotated, Any

import tyro

from moejax.cli import again
from moejax.commands import processes
from moejax.commands.parse import parse
from moejax.commands.prompt_sources import Prompt, collect, tokens
from moejax.commands.routed import Routed, ready
from moejax.commands.typewriter import Typewriter
from moejax.evaluate.completions import Completion, Settings, complete
from moejax.evaluate.results import versions
from moejax.evaluate.used import used
from moejax.parallel import hosts
from moejax.parallel.agree import agree
from moejax.parallel.mesh import MeshConfig, on
from moejax.train.code_version import code_version

DESCRIPTION = (
    "Answers prompts with a base and routed experts: words in quotes, --file (a line each, or *.jsonl), or standard "
    "input as one prompt."
)
MOST = 3  # warnings that are printed


@dataclass(frozen=True)
class Options(Routed):
    """What is asked, of whom, and how the answer is drawn and shown."""

    prompts: tyro.conf.Positional[Annotated[tuple[str, ...], tyro.conf.arg(metavar="[PROMPT …]")]] = ()
    """what to go on from, each in quotes"""
    file: str = ""
    """A file of prompts, a line each; *.jsonl: {"prompt": …} or {"messages": […]} a line; -: standard input."""
    chat: bool = False
    """Put each prompt into the words of the base's chat template."""
    system: str = ""
    """With --chat, a system message before it."""
    max_new: int = 128
    """Most tokens of an answer."""
    temperature: float = 0.0
    """0: always the most likely token; above: drawn from softmax(logits / temperature)."""
    top_p: float = 1.0
    """Draw from the fewest tokens whose probabilities reach this."""
    stop: tyro.conf.UseAppendAction[tuple[str, ...]] = ()
    """A text before which an answer ends; say it several times for several."""
    seed: int = 0
    """What is drawn follows from it."""
    batch: int = 8
    """Prompts that are answered together."""
    stream: bool = False
    """Print one prompt's answer as it grows; so it is on a terminal."""
    show_experts: bool = False
    """For each token of an answer, the expert with most weight, averaged over all places, and a table of them."""
    json: bool = False
    """One JSON object a prompt."""
    mesh: MeshConfig = MeshConfig()
    """Devices, along which the base and the experts are split."""


def main(argv: Sequence[str]) -> int | None:
    """Answer; the exit status, None: 0. Raises UserError for a wrong option, prompt, base, expert or method."""
    cluster, words = processes.apart(argv)
    options = parse(Options, words, "python generate.py", DESCRIPTION)
    if (status := processes.join(cluster, again("generate.py", argv))) is not None:
        return status
    agree(options=asdict(options), versions={"moejax": code_version(), **versions()})
    with on(options.mesh):
        _answer(options)
    return None


def _answer(options: Options) -> None:
    asked = _collected(options)
    base, pool, adapted, arrays, _, wants_query, warnings = ready(options)
    hashes = [info.get("hash") for info in pool.infos]
    agree(base=base.fingerprint, experts=dict(zip(pool.names, hashes, strict=True)))
    if hosts.speaks():
        _warn(warnings)
    ids = [tokens(base, prompt) for prompt in asked]
    query = base.embedder([prompt.text for prompt in asked]) if wants_query and base.embedder else None
    settings = Settings(
        options.max_new, options.temperature, options.top_p, options.stop, options.seed, options.batch
    )
    alone = len(asked) == 1 and not options.json
    grows = hosts.first(lambda: alone and (options.stream or sys.stdout.isatty()))
    screen = partial(print, end="", flush=True) if hosts.speaks() else lambda text: None
    writer = Typewriter(screen, options.stop) if grows else None
    found = complete(base, adapted, arrays, ids, settings, query, writer)
    records: Sequence[dict[str, Any] | None] = [None] * len(found)
    if options.show_experts:
        records = used(base, adapted, arrays, pool.names, ids, [one.tokens for one in found], query)
    if not hosts.speaks():
        return
    for number, (prompt, answer, record) in enumerate(zip(asked, found, records, strict=True), 1):
        if options.json:
            print(_json(prompt, answer, record))
            continue
        if len(asked) > 1:
            print(f"[{number}] {prompt.text}")
        if writer is None:
            print(answer.text)
        if record is not None:
            _show(record)


def _collected(options: Options) -> list[Prompt]:
    """The prompts, which of several processes the first alone reads."""

    def read() -> list[Any]:
        return list(map(list, collect(options.prompts, options.file, options.chat, options.system)))

    return [Prompt(text, tuple(messages), source) for text, messages, source in hosts.first(read)]


def _warn(warnings: Sequence[str]) -> None:
    for warning in warnings[:MOST]:
        print(f"warning: {warning}", file=sys.stderr)
    if len(warnings) > MOST:
        print(f"warning: and {len(warnings) - MOST} more, see python -m moejax check", file=sys.stderr)


def _json(prompt: Prompt, answer: Completion, record: dict[str, Any] | None) -> str:
    said = {"prompt": prompt.text, "answer": answer.text, "tokens": len(answer.tokens), "ended": answer.ended}
    return json.dumps(said | ({} if record is None else {"experts": record}), ensure_ascii=False)


def _show(record: dict[str, Any]) -> None:
    """The expert of each token, then how often each was first and how much weight it had."""
    from rich.console import Console
    from rich.markup import escape
    from rich.table import Table

    console, each, shares = Console(), Table("token", "expert", "weight"), Table("expert", "first", "weight")
    for word, expert, weight in zip(record["tokens"], record["expert"], record["weight"], strict=True):
        each.add_row(
            escape(json.dumps(word, ensure_ascii=False)[1:-1]), escape(expert or "–"), f"{weight:.2f}"
        )
    for name, weight in record["weights"].items():
        shares.add_row(
            escape(name), f"{record['expert'].count(name)} of {len(record['tokens'])}", f"{weight:.2f}"
        )
    for table in (each, shares):
        for column in table.columns[1:]:
            column.justify = "right" if column.header != "expert" else "left"
        console.print(table)
