"""What a base is, by its config.json and the headers of its files: known before a number of it is read."""

from pathlib import Path

from moejax.experts.checkpoint import Stored, read_json, stored
from moejax.experts.links import inside
from moejax.models import t5
from moejax.models.configs import Config, configure
from moejax.models.folder import locate
from moejax.models.seq2seq import Seq2SeqConfig


def settings(source: str | Path, dtype: str = "float32") -> Config:
    """The settings of a base in a Hugging Face folder or on the hub; `dtype` of parameters and arithmetic.

    Raises UserError for a folder, config or file that is absent, damaged, disagreeing or asks for code.
    """
    return opened(source, dtype)[1]


def opened(source: str | Path, dtype: str) -> tuple[Path, Config, dict[str, Stored]]:
    """A base's folder, settings and tensors, of which none is read. Raises UserError as `settings` does."""
    folder = locate(source)
    file = inside(folder / "config.json")
    config, files = configure(read_json(file), str(file), dtype), stored(folder)
    if isinstance(config, Seq2SeqConfig):
        config = t5.with_head(config, files)  # only the files say whether a T5 has a head of its own
    return folder, config, files
