"""Tiny tokenizers trained on the spot, and small tasks."""

import pytest

from moejax.data.tasks import Row, Task

CORPUS = [
    "the cow eats grass on the hill", "what a terrible bad movie", "a great enjoyable movie",
    "is this review positive or negative?", "which animal?", "farm bird yes no maybe 1 2 3 4",
]  # fmt: skip


def wrapped(model, trainer, pre, specials: dict[str, str], template: str | None):
    import tokenizers
    from transformers import PreTrainedTokenizerFast

    made = tokenizers.Tokenizer(model)
    made.pre_tokenizer = pre
    made.train_from_iterator(CORPUS, trainer)
    if isinstance(pre, tokenizers.pre_tokenizers.ByteLevel):
        made.decoder = tokenizers.decoders.ByteLevel()
    if template:
        pieces = [(token, made.token_to_id(token)) for token in specials.values() if token in template]
        made.post_processor = tokenizers.processors.TemplateProcessing(single=template, special_tokens=pieces)
    return PreTrainedTokenizerFast(tokenizer_object=made, **specials)


@pytest.fixture(scope="session")
def encoder_tokenizer():
    """Word level, as BERT frames a text: [CLS] text [SEP]."""
    from tokenizers import models, pre_tokenizers, trainers

    specials = {"pad_token": "[PAD]", "unk_token": "[UNK]", "cls_token": "[CLS]", "sep_token": "[SEP]"}
    trainer = trainers.WordLevelTrainer(special_tokens=list(specials.values()))
    model = models.WordLevel(unk_token="[UNK]")
    return wrapped(model, trainer, pre_tokenizers.Whitespace(), specials, "[CLS] $A [SEP]")


@pytest.fixture(scope="session")
def seq2seq_tokenizer():
    """Word level, with T5's special tokens."""
    from tokenizers import models, pre_tokenizers, trainers

    specials = {"pad_token": "<pad>", "eos_token": "</s>", "unk_token": "<unk>"}
    trainer = trainers.WordLevelTrainer(special_tokens=list(specials.values()))
    model = models.WordLevel(unk_token="<unk>")
    return wrapped(model, trainer, pre_tokenizers.Whitespace(), specials, "$A </s>")


@pytest.fixture(scope="session")
def decoder_tokenizer():
    """Byte level, as Llama frames a text: <s> text; no padding token."""
    from tokenizers import models, pre_tokenizers, trainers

    specials = {"bos_token": "<s>", "eos_token": "</s>"}
    trainer = trainers.BpeTrainer(
        vocab_size=400, special_tokens=list(specials.values()),
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(), show_progress=False,
    )  # fmt: skip
    pre = pre_tokenizers.ByteLevel(add_prefix_space=False)
    return wrapped(models.BPE(), trainer, pre, specials, "<s> $A")


@pytest.fixture
def review() -> Task:
    """Two labels with phrases; one row a split."""
    ask = "is this review positive or negative?"
    return Task(
        "review", "classification", "sentiment", ask,
        {
            "train": (
                Row("a great enjoyable movie", ask, "positive"),
                Row("what a terrible bad movie", ask, "negative"),
            ),
            "validation": (Row("terrible", ask, "negative"),),
            "test": (
                Row("enjoyable", ask, "positive", group="seen"), Row("bad", ask, "negative", group="unseen")
            ),
        },
        ("negative", "positive"), ("a terrible movie", "a great movie"),
    )  # fmt: skip


@pytest.fixture
def animals() -> Task:
    """Options that differ from row to row, and free text without options."""
    ask = "which animal?"
    rows = (Row("the cow", ask, "farm", ("bird", "farm")), Row("1 2", ask, "maybe", ("yes", "no", "maybe")))
    return Task("animals", "generation", "lexical", ask, {"train": rows, "validation": (), "test": ()})
