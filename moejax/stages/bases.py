"""The base of a run and the model beside it: read from folders, or a decoder that the run itself trains first."""

import shutil
import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from rich.console import Console

from moejax.config import TRAINED, Config
from moejax.data.batch import collate, widest
from moejax.data.encode import encode
from moejax.data.tasks import Task
from moejax.data.word_tokenizer import word_tokenizer
from moejax.models import minilm, weights
from moejax.models.base import Base
from moejax.parallel import hosts
from moejax.parallel.rules import of_base
from moejax.stages.works import work_of
from moejax.train.rows import ArrayRows
from moejax.train.rows import stack as rows_stack
from moejax.train.run_folder import RunFolder
from moejax.train.scratch import from_nothing
from moejax.types import UserError

FOLDER = "base"  # of a run, where the decoder stands that it trained


def load_base(config: Config, source: str) -> Base:
    """The base at `source`, and the model beside it.

    Raises UserError when one cannot be read or has no tokenizer, when they are of different kinds, or when their
    tokenizers differ.
    """
    base = _read(source, config)
    if not config.base.beside:
        return base
    beside = _read(config.base.beside, config)
    if beside.kind != base.kind:
        raise UserError(
            f"{config.base.beside} (base.beside) is {_a(beside.kind)}, but the base is {_a(base.kind)}: two models "
            "work together only when both are of one kind"
        )
    if not beside.reads_as(base):
        raise UserError(
            f"{config.base.beside} (base.beside) has another tokenizer than the base: both must read the same token ids"
        )
    return replace(base, beside=beside)


def _a(kind: str) -> str:
    return {"encoder": "an encoder", "decoder": "a decoder", "seq2seq": "a seq2seq"}.get(kind, kind)


def _read(name: str, config: Config) -> Base:
    source = minilm.installed() if name == "minilm" else name
    base = weights.load(source, dtype=config.base.dtype, sharding=of_base, bits=config.base.quantise)
    chosen = {"remat": config.base.remat, "formulation": config.base.formulation}
    settings = replace(base.model.config, **chosen)  # pyright: ignore[reportAttributeAccessIssue]
    return replace(base, model=type(base.model)(settings))


def trained(
    config: Config, tasks: Mapping[str, Task], public: Sequence[str], run: RunFolder, console: Console
) -> str:
    """The folder of a decoder that is trained from nothing on the public tasks' training rows, once in a run.

    Its vocabulary has the words of all tasks, so that experts can be taught theirs; what it learns is of the public
    ones alone. It is kept as Hugging Face lays it out, and read as any other. Raises UserError where no task is public.
    """
    folder, recipe = run.inside(FOLDER), config.base.recipe
    if run.done(FOLDER) is None:
        if not public:
            raise UserError(
                f"base.source is {TRAINED}, but no task is public, and it learns of these alone: name some in "
                "data.general, or give data.rules.public"
            )
        start, work = time.perf_counter(), work_of(config, run, FOLDER, progress=console.is_terminal)
        tokenizer = word_tokenizer(tasks.values())
        rows = _rows([tasks[name] for name in public], tokenizer, config.data.window)
        made = from_nothing(rows, len(tokenizer), recipe, work)
        hosts.write(lambda: weights.save(made, folder))
        hosts.write(lambda: tokenizer.save_pretrained(str(folder)))
        seconds = time.perf_counter() - start
        run.mark(FOLDER, {"seconds": seconds})
        hosts.write(lambda: shutil.rmtree(work.folder, ignore_errors=True))
        console.print(
            f"a decoder of {len(tokenizer)} words, trained on {len(rows)} public rows in {seconds:.0f} s"
        )
    return str(folder)


def _rows(tasks: Sequence[Task], tokenizer: Any, window: int) -> ArrayRows:
    """The training rows of tasks as one batch."""
    parts = [encode(task, task.rows["train"], tokenizer, window, "decoder") for task in tasks]
    width, _ = widest(parts)
    whole = rows_stack([collate(part, width=width) for part in parts])
    return ArrayRows(whole, np.arange(len(whole.tokens)))
