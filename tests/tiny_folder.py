"""Tiny random bases as folders in Hugging Face's layout, tokenizer included."""

from pathlib import Path

from moejax.data.vocabulary import KINDS
from moejax.models.decoder import DecoderConfig
from moejax.models.encoder import EncoderConfig
from moejax.models.seq2seq import Seq2SeqConfig
from moejax.models.weights import random_base, save


def encoder(folder: Path, layers: int = 2, width: int = 16, seed: int = 0) -> Path:
    """A BERT-like encoder whose words are those of the generated suite."""
    shape = EncoderConfig(
        vocab=tokenizer(folder), width=width, layers=layers, heads=2, hidden=2 * width, positions=64
    )
    save(random_base(shape, seed), folder)
    return folder


def decoder(folder: Path) -> Path:
    """A Llama-like decoder of two layers."""
    size = tokenizer(folder)
    save(random_base(DecoderConfig(vocab=size, width=16, layers=2, heads=2, kv_heads=1, hidden=32)), folder)
    return folder


def seq2seq(folder: Path) -> Path:
    """A T5 v1.1 of one block below and two above, whose words are those of the suite."""
    shape = Seq2SeqConfig(
        vocab=tokenizer(folder, end="</s>"), width=16, encoder_layers=1, decoder_layers=2, heads=2, head_dim=6,
        hidden=24, buckets=8, most=20,
    )  # fmt: skip
    save(random_base(shape), folder)
    return folder


def tokenizer(folder: Path, end: str | None = None) -> int:
    """Save a word tokenizer trained on the suite's words, with an end token if asked; gives how many tokens it has."""
    from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, trainers
    from transformers import PreTrainedTokenizerFast

    special = ["[PAD]", "[UNK]", "[CLS]", "[SEP]"] + ([end] if end else [])
    words = Tokenizer(models.WordLevel(unk_token="[UNK]"))
    words.normalizer = normalizers.Lowercase()
    words.pre_tokenizer = pre_tokenizers.Whitespace()
    text = [word for kind in KINDS.values() for value in kind.values.values() for word in value.words]
    text += [word for kind in KINDS.values() for word in (kind.question, *kind.templates)]
    words.train_from_iterator(text, trainers.WordLevelTrainer(special_tokens=special, show_progress=False))
    fast = PreTrainedTokenizerFast(
        tokenizer_object=words, pad_token="[PAD]", unk_token="[UNK]", cls_token="[CLS]", sep_token="[SEP]",
        eos_token=end,
    )  # fmt: skip
    fast.save_pretrained(folder)
    return words.get_vocab_size()
