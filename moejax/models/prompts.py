"""Prompts as batches: chat templates, tokens, and rows padded on the left to widths that come in few sizes."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from moejax.experts.folder import read_json
from moejax.models.base import Base
from moejax.types import Batch, UserError

NARROWEST = 16  # tokens to which the shortest prompts are padded


def bucket(count: int, least: int = 1) -> int:
    """The smallest of least, 2 least, 4 least, … that is `count` or more: sizes that come in few steps."""
    found = least
    while found < count:
        found *= 2
    return found


def tokenizer_of(base: Base) -> Any:
    """The base's tokenizer. Raises UserError where it has none."""
    if base.tokenizer is None:
        raise UserError("the base has no tokenizer: give a folder that holds one")
    return base.tokenizer


def chat(base: Base, messages: Sequence[Mapping[str, str]], answer: bool = True) -> str:
    """Messages {"role", "content"} in the words of the base's chat template, up to where the answer begins.

    `answer` False: the last message is the beginning of the answer, and is left open.
    Raises UserError when there is no template, or when it refuses these messages.
    """
    tokenizer = tokenizer_of(base)
    if not tokenizer.chat_template:
        raise UserError(
            f"{base.folder}: the tokenizer has no chat template: leave --chat out, or give a model tuned on chats"
        )
    try:
        return tokenizer.apply_chat_template(
            list(messages), tokenize=False, add_generation_prompt=answer, continue_final_message=not answer
        )
    except Exception as error:  # a template is a stranger's program, run in jinja's sandbox
        raise UserError(f"{base.folder}: the chat template refuses these messages ({error})") from error


def encode(base: Base, text: str, special: bool = True) -> list[int]:
    """Token ids of a prompt; `special`: with those that the tokenizer puts around a text.

    Raises UserError for a text of no tokens.
    """
    found = list(tokenizer_of(base).encode(text, add_special_tokens=special))
    if not found:
        raise UserError(f"the prompt {text!r} is empty: it has no tokens")
    return found


def left_padded(rows: Sequence[Sequence[int]], count: int, least: int = NARROWEST) -> Batch:
    """Prompts as one batch on the host, [count, width], all of it request; the first row fills it up to `count`.

    The width is the smallest of least, 2 least, 4 least, … that holds the longest.
    """
    width = bucket(max(map(len, rows)), least)
    tokens, mask = np.zeros((count, width), np.int32), np.zeros((count, width), bool)
    for i in range(count):
        row = rows[i] if i < len(rows) else rows[0]
        tokens[i, width - len(row) :], mask[i, width - len(row) :] = row, True
    return Batch(tokens, mask, mask, weight=(np.arange(count) < len(rows)).astype(np.float32))


def ends(base: Base) -> tuple[int, ...]:
    """The ids at which an answer ends: those that the tokenizer, generation_config.json and config.json name.

    Raises UserError when a file names something that is no id.
    """
    found = {base.tokenizer.eos_token_id} if base.tokenizer is not None else set()
    for name in ("generation_config.json", "config.json"):
        file = Path(base.folder or "") / name
        if base.folder is None or not file.exists():
            continue
        said = read_json(file).get("eos_token_id")
        ids = said if isinstance(said, list) else [said]
        if any(type(one) is not int for one in ids if one is not None):
            raise UserError(f"{file}: eos_token_id is {said!r}: expected an id, or a list of ids")
        found |= set(ids)
    return tuple(sorted(found - {None}))


def longest(base: Base) -> int | None:
    """Tokens that the base has positions for, prompt and answer together; None where its folder does not say."""
    if base.folder is None:
        return getattr(base.model.config, "positions", None)  # pyright: ignore[reportAttributeAccessIssue]
    found = read_json(Path(base.folder) / "config.json")
    inner = found.get("text_config")
    found = inner if isinstance(inner, dict) else found
    key = "n_positions" if found.get("model_type") == "gpt2" else "max_position_embeddings"
    said = found.get(key)
    return said if type(said) is int and said > 0 else None
