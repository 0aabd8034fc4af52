"""A Hugging Face folder of a stranger: found, here or on the hub, and its tokenizer read."""

import re
from pathlib import Path
from typing import Any

from moejax.experts.links import inside
from moejax.types import UserError

VOCABULARIES = (
    "tokenizer.json",
    "vocab*",
    "*.model",
)  # without one of them transformers makes an empty tokenizer
WANTED = ("config.json", "*.safetensors", "*.safetensors.index.json", "tokenizer*", "vocab*", "merges.txt",
          "special_tokens_map.json", "*.model", "generation_config.json", "chat_template*")  # fmt: skip
ADAPTER = ("*.json", "*.safetensors", "*.jsonl")  # what an expert's folder holds that is read


def locate(source: str | Path, wanted: tuple[str, ...] = WANTED) -> Path:
    """The folder of a base: `source` itself, or a snapshot of the hub's repository of that name.

    wanted: patterns of the files that are taken from the hub; those of a base, or `ADAPTER`.
    Raises UserError when there is no such folder and the hub does not give one.
    """
    what = "config.json" if wanted is WANTED else "adapter_config.json"
    folder = Path(source).expanduser()
    if folder.is_dir():
        return folder
    if folder.exists():
        raise UserError(f"{source} is a file: give its folder, with {what}")
    if not re.fullmatch(r"[\w-][\w.-]*(/[\w-][\w.-]*)?", str(source)):
        raise UserError(f"there is no folder {source}: give a folder with {what} and its .safetensors")
    from huggingface_hub import snapshot_download

    try:
        return Path(snapshot_download(str(source), allow_patterns=list(wanted)))
    except Exception as error:  # whatever the network and the hub's client raise
        why = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise UserError(
            f"{source} is neither a folder here nor a model that the hub gives ({why}): "
            "download it where there is a network and give its folder"
        ) from error


def read_tokenizer(folder: Path, vocab: int | None = None) -> Any:
    """The tokenizer of a folder, never running code of it.

    Raises UserError when there is none, when a file of it is a link out of the folder, and when it has a token for
    which a model of `vocab` words has no row. Rows without a token are fine: many models are padded.
    """
    from transformers import AutoTokenizer

    if not any(path for pattern in VOCABULARIES for path in folder.glob(pattern)):
        names = ", ".join(VOCABULARIES)
        raise UserError(
            f"{folder}: no tokenizer can be read (there is none of {names}): copy the base's own there"
        )
    for file in sorted({file for pattern in WANTED for file in folder.glob(pattern)}):
        inside(file)
    try:
        found = AutoTokenizer.from_pretrained(str(folder), trust_remote_code=False, local_files_only=True)
        tokens = max(found.get_vocab().values(), default=-1) + 1
    except Exception as error:  # whatever the library raises on a stranger's files
        raise UserError(f"{folder}: no tokenizer can be read ({error})") from error
    if vocab is not None and tokens > vocab:
        raise UserError(
            f"{folder}: the tokenizer has {tokens} tokens, the model rows for {vocab}: they are of two bases"
        )
    return found
