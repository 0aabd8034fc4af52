"""Tiny random bases as folders in Hugging Face's layout, tokenizer included."""

import json
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


CHAT = (
    "{% for m in messages %}{% if m.role == 'tool' %}{{ raise_exception('no tools here') }}{% endif %}"
    "<{{ m.role }}>{{ m.content }}{% endfor %}{% if add_generation_prompt %}<assistant>{% endif %}"
)


def speaker(folder: Path, seed: int = 0, chat: str | None = CHAT, positions: int = 512) -> Path:
    """A Llama-like decoder of two layers that reads and writes letters, whatever comes: see `letters`."""
    size = letters(folder, chat)
    shape = DecoderConfig(vocab=size, width=16, layers=2, heads=2, kv_heads=1, hidden=32, remat=False)
    save(random_base(shape, seed), folder)
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | {"max_position_embeddings": positions}))
    return folder


def letters(folder: Path, chat: str | None = CHAT) -> int:
    """Save a byte-level tokenizer: small letters, marks, the two bytes of é, a few pairs; no token to pad with."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    alphabet = [*"abcdefghijklmnopqrstuvwxyz<>.,?!", "Ġ", "Ċ", "Ã", "©", "<s>", "</s>", "?u"]
    pairs = [("a", "n"), ("e", "r"), ("Ġ", "t"), ("t", "h"), (".", "Ċ"), ("Ã", "©")]
    vocab = {word: i for i, word in enumerate([*alphabet, *map("".join, pairs)])}
    made = Tokenizer(models.BPE(vocab=vocab, merges=pairs, unk_token="?u"))
    made.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    made.decoder = decoders.ByteLevel()
    fast = PreTrainedTokenizerFast(tokenizer_object=made, bos_token="<s>", eos_token="</s>", unk_token="?u")
    fast.chat_template = chat
    folder.mkdir(parents=True, exist_ok=True)
    fast.save_pretrained(folder)
    return len(vocab)


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
