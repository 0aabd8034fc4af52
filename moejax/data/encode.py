"""From rows of text to lines of tokens, for an encoder, a decoder or a seq2seq.

Encoder: `[CLS] text instruction [SEP]`. Decoder: `[BOS] text "\\n" instruction "\\n" answer [EOS]`.
Seq2seq: `text instruction [EOS]`, and apart from it `answer [EOS]`.
An empty instruction has no token, and no line break of its own.
Text, instruction and answer are turned into tokens apart: a request has the same tokens whatever follows. A
text that does not fit the window is cut at its end; instruction and answer never are.
"""

from collections.abc import Callable, Sequence
from typing import Any, Literal, NamedTuple

from moejax.data.tasks import Row, Task
from moejax.types import UserError

Texts = list[list[int]]


class Line(NamedTuple):
    """One line of tokens.

    text: first and one past the last of the text's own tokens; request: number of leading tokens that are the
    request; row: number of the row; choice: decoder, the option that is the answer (-1: its own target);
    target: position of the right option, -1 unknown; options: encoder, the options' rows of the label matrix;
    said: seq2seq, the tokens of the answer.
    """

    tokens: list[int]
    text: tuple[int, int]
    request: int
    row: int
    choice: int = -1
    target: int = -1
    options: tuple[int, ...] = ()
    said: tuple[int, ...] = ()


class Encoded(NamedTuple):
    """Lines of one task, and how many of its texts were cut to the window."""

    kind: Literal["encoder", "decoder", "seq2seq"]
    lines: list[Line]
    cut: int
    pad: int

    @property
    def longest(self) -> int:
        """Tokens that the model is fed for the longest line."""
        return max((fed(line) for line in self.lines), default=0)

    @property
    def most(self) -> int:
        """Options of the line that has most; of a seq2seq, tokens of the longest answer."""
        return max((beside(line) for line in self.lines), default=0)


def fed(line: Line) -> int:
    """Tokens that the model is fed: all of a request, all but the last of an answer."""
    return max(line.request, len(line.tokens) - 1)


def answered(line: Line) -> int:
    """Tokens of the answer: what follows the request, or of a seq2seq stands apart from it."""
    return len(line.said) or len(line.tokens) - line.request


def beside(line: Line) -> int:
    """What stands beside a line's tokens: its options, or the tokens of a seq2seq's answer."""
    return len(line.options) or len(line.said)


def encode(
    task: Task,
    rows: Sequence[Row],
    tokenizer: Any,
    window: int,
    kind: Literal["encoder", "decoder", "seq2seq"],
    labels: Sequence[str] = (),
    answers: Literal["own", "each", "none"] = "own",
    end: bool = True,
) -> Encoded:
    """Lines of `rows`, none longer than `window` tokens.

    labels: encoder, the phrases of the label matrix (`tasks.labels`).
    answers: decoder and seq2seq, one line a row with its target ("own"), one a row and option ("each"), or requests
    only ("none", for generation). The window of a seq2seq holds the request, without the answer. end: whether an
    answer closes with the end token.
    Raises UserError where a row has no token, or instruction and answer leave the text no room.
    """
    plain = {"add_special_tokens": False, "verbose": False}
    texts = tokenizer([row.input for row in rows], **plain)["input_ids"] if rows else []
    for number, (row, text) in enumerate(zip(rows, texts, strict=True)):
        if not text:
            raise UserError(f"{task.name}, row {number}: this tokenizer finds no token in {row.input[:40]!r}")
    if kind == "encoder":
        lines, cut = _encoder(task, rows, texts, tokenizer, window, labels)
    elif kind == "seq2seq":
        lines, cut = _seq2seq(task, rows, texts, tokenizer, window, answers, end)
    else:
        lines, cut = _decoder(task, rows, texts, tokenizer, window, answers, end)
    pad = tokenizer.pad_token_id
    return Encoded(kind, lines, cut, 0 if pad is None else pad)


def _encoder(
    task: Task, rows: Sequence[Row], texts: Texts, tokenizer: Any, window: int, labels: Sequence[str]
) -> tuple[list[Line], int]:
    if task.kind != "classification":
        raise UserError(f"{task.name} has free text as answers: an encoder scores labels only; leave it out")
    first, last = tokenizer.cls_token_id, tokenizer.sep_token_id
    if first is None or last is None:
        raise UserError("the tokenizer has no [CLS] and [SEP] tokens: an encoder needs its own tokenizer")
    place, asked = {phrase: i for i, phrase in enumerate(labels)}, _cached(tokenizer, " {}")
    known: dict[tuple[str, ...] | None, tuple[int, ...]] = {}
    lines, cut = [], 0
    for number, (row, text) in enumerate(zip(rows, texts, strict=True)):
        instruction = asked(row.instruction)
        room = _room(task, number, window, 2 + len(instruction))
        cut += len(text) > room
        text = text[:room]
        tokens = [first, *text, *instruction, last]
        if row.choices not in known:
            known[row.choices] = tuple(_label(place, task, phrase) for phrase in task.phrases(row))
        options = known[row.choices]
        lines.append(Line(tokens, (1, 1 + len(text)), len(tokens), number, -1, task.answer(row), options))
    return lines, cut


def _decoder(
    task: Task, rows: Sequence[Row], texts: Texts, tokenizer: Any, window: int, answers: str, closed: bool
) -> tuple[list[Line], int]:
    asked, answered, between = _cached(tokenizer, "\n{}\n"), _cached(tokenizer, "{}"), _ids(tokenizer, "\n")
    begin = [token for token in tokenizer("")["input_ids"][:1] if token == tokenizer.bos_token_id]
    end = [tokenizer.eos_token_id] if closed and tokenizer.eos_token_id is not None else []
    lines, cut = [], 0
    for number, (row, text) in enumerate(zip(rows, texts, strict=True)):
        options, said = _said(task, number, row, answers)
        tails = [answered(one) + end for one in said] or [[]]
        instruction = asked(row.instruction) if row.instruction else between
        longest = max(len(tail) for tail in tails)
        room = _room(task, number, window, len(begin) + len(instruction) + max(longest - 1, 0))
        cut += len(text) > room
        request = [*begin, *text[:room], *instruction]
        span = (len(begin), len(begin) + min(room, len(text)))
        right = options.index(row.target) if options else -1
        for choice, tail in enumerate(tails):
            at = choice if answers == "each" else -1
            lines.append(Line(request + tail, span, len(request), number, at, right))
    return lines, cut


def _seq2seq(
    task: Task, rows: Sequence[Row], texts: Texts, tokenizer: Any, window: int, answers: str, closed: bool
) -> tuple[list[Line], int]:
    asked, answered, end = _cached(tokenizer, " {}"), _cached(tokenizer, "{}"), tokenizer.eos_token_id
    if end is None:
        raise UserError("the tokenizer has no end token (eos_token): a seq2seq needs its own tokenizer")
    lines, cut = [], 0
    for number, (row, text) in enumerate(zip(rows, texts, strict=True)):
        options, said = _said(task, number, row, answers)
        instruction = asked(row.instruction) if row.instruction else []
        room = _room(task, number, window, len(instruction) + 1)
        cut += len(text) > room
        request, span = [*text[:room], *instruction, end], (0, min(room, len(text)))
        right = options.index(row.target) if options else -1
        tails = [(*answered(one), *[end] * closed) for one in said] or [()]
        for choice, tail in enumerate(tails):
            at = choice if answers == "each" else -1
            lines.append(Line(request, span, len(request), number, at, right, said=tail))
    return lines, cut


def _said(task: Task, number: int, row: Row, answers: str) -> tuple[Sequence[str], Sequence[str]]:
    """The row's options, and the answers that get a line each."""
    options = task.options(row)
    if answers == "each" and not options:
        raise UserError(f"{task.name}, row {number} has no choices to rank: score it as free text")
    return options, {"own": [row.target], "each": options, "none": []}[answers]


def _ids(tokenizer: Any, text: str) -> list[int]:
    return tokenizer(text, add_special_tokens=False, verbose=False)["input_ids"]


def _cached(tokenizer: Any, form: str) -> Callable[[str], list[int]]:
    """Tokens of a text in this form, found once."""
    known: dict[str, list[int]] = {}

    def ids(text: str) -> list[int]:
        if text not in known:
            known[text] = _ids(tokenizer, form.format(text))
        return known[text]

    return ids


def _room(task: Task, number: int, window: int, taken: int) -> int:
    if taken >= window:
        raise UserError(
            f"{task.name}, row {number}: instruction and answer take {taken} tokens and leave no room for "
            f"the text in a window of {window}; use a window above {taken}"
        )
    return window - taken


def _label(place: dict[str, int], task: Task, phrase: str) -> int:
    if phrase not in place:
        raise UserError(f"{task.name}: {phrase!r} is not among the label phrases; make them of all tasks")
    return place[phrase]
