"""From lines of tokens to arrays: padding, masks, and few shapes."""

from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np

from moejax.data.encode import Encoded, Line, beside, fed
from moejax.types import Batch, UserError


def bucket(length: int, multiple: int = 8) -> int:
    """The next multiple: few widths, so few compilations."""
    return -(-length // multiple) * multiple


def widest(parts: Iterable[Encoded], multiple: int = 8) -> tuple[int, int]:
    """A width and a number of options that all parts fit into: what gives their batches one shape."""
    parts = list(parts)
    return bucket(max(part.longest for part in parts), multiple), max(part.most for part in parts)


def collate(
    encoded: Encoded,
    at: Sequence[int] | None = None,
    *,
    width: int | None = None,
    options: int | None = None,
    size: int | None = None,
    left: bool = False,
    expert: int | None = None,
) -> Batch:
    """The lines `at` these places (all of them by default) as one batch of numpy arrays.

    width: tokens of every row, by default the bucket of the longest line; options: width of `choices`, or of a
    seq2seq's answers; where none of its lines has one, `targets` is None.
    size: rows; what is missing is filled by repeating the first line with weight 0.
    left: padding on the left, as decoding wants it.  expert: fills `Batch.expert`.
    Raises UserError where a line, its options or the lines do not fit.
    """
    lines = encoded.lines if at is None else [encoded.lines[i] for i in at]
    size = len(lines) if size is None else size
    width = bucket(max((fed(line) for line in lines), default=0)) if width is None else width
    what = "tokens of its answer" if encoded.kind == "seq2seq" else "options"
    options = max((beside(line) for line in lines), default=0) if options is None else options
    for line in lines:
        own = beside(line)
        if fed(line) > width or own > options:
            raise UserError(f"a line of {fed(line)} tokens and {own} {what} exceeds {width}, {options}")
    if not 0 < len(lines) <= size:
        raise UserError(f"a batch of {size} rows cannot hold {len(lines)} lines")
    weight = (np.arange(size) < len(lines)).astype(np.float32)
    lines = lines + [lines[0]] * (size - len(lines))
    tokens = np.full((size, width), encoded.pad, np.int32)
    mask, prompt, pool = (np.zeros((size, width), bool) for _ in range(3))
    start = [width - fed(line) if left else 0 for line in lines]
    for i, (line, s) in enumerate(zip(lines, start, strict=True)):
        tokens[i, s : s + fed(line)] = line.tokens[: fed(line)]
        mask[i, s : s + fed(line)] = True
        prompt[i, s : s + line.request] = True
        pool[i, s + line.text[0] : s + line.text[1]] = True
    fields: dict[str, Any] = {"tokens": tokens, "mask": mask, "prompt": prompt, "weight": weight}
    if expert is not None:
        fields["expert"] = np.full(size, expert, np.int32)
    if encoded.kind == "decoder":
        fields["targets"], fields["answer"] = _next(lines, start, width)
    elif encoded.kind == "seq2seq":
        fields |= _answers(lines, options) if options else {}
    else:
        fields["targets"] = np.array([line.target for line in lines], np.int32)
        fields |= {"pool": pool, "choices": _options(lines, options)}
    return Batch(**fields)


def _next(lines: Sequence[Line], start: Sequence[int], width: int) -> tuple[np.ndarray, np.ndarray]:
    """The token after each position (0 where none), and the positions whose next token is an answer's."""
    targets, answer = np.zeros((len(lines), width), np.int32), np.zeros((len(lines), width), bool)
    for i, (line, s) in enumerate(zip(lines, start, strict=True)):
        following = line.tokens[1:]
        targets[i, s : s + len(following)] = following
        answer[i, s + line.request - 1 : s + len(following)] = True
    return targets, answer


def _answers(lines: Sequence[Line], width: int) -> dict[str, np.ndarray]:
    """The tokens of each answer, padded on the right."""
    targets, answer = np.zeros((len(lines), width), np.int32), np.zeros((len(lines), width), bool)
    for i, line in enumerate(lines):
        targets[i, : len(line.said)] = line.said
        answer[i, : len(line.said)] = True
    return {"targets": targets, "answer": answer}


def _options(lines: Sequence[Line], options: int) -> np.ndarray:
    choices = np.full((len(lines), options), -1, np.int32)
    for i, line in enumerate(lines):
        choices[i, : len(line.options)] = line.options
    return choices
