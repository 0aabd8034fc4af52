"""A tokenizer whose tokens are words: for a decoder that is trained on a few hundred of them."""

from collections.abc import Iterable
from typing import Any

from moejax.data.tasks import SPLITS, Task

PAD, UNKNOWN, END, BREAK = "<pad>", "<unk>", "<end>", "\n"


def words(tasks: Iterable[Task]) -> list[str]:
    """Every word of texts, instructions and answers, sorted; words stand between spaces and line breaks."""
    found: set[str] = set()
    for task in tasks:
        for row in (row for split in SPLITS for row in task.rows[split]):
            for text in (row.input, row.instruction, row.target, *task.options(row)):
                found.update(text.split())
    return sorted(found)


def word_tokenizer(tasks: Iterable[Task]) -> Any:
    """A tokenizer of these words, of the line break, and of three special tokens: padding, unknown, end."""
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    known = dict.fromkeys([PAD, UNKNOWN, END, BREAK, *words(tasks)])
    made = Tokenizer(models.WordLevel({word: i for i, word in enumerate(known)}, unk_token=UNKNOWN))
    made.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.Split(BREAK, "isolated"), pre_tokenizers.Split(" ", "removed")]
    )
    return PreTrainedTokenizerFast(tokenizer_object=made, pad_token=PAD, unk_token=UNKNOWN, eos_token=END)
