"""An embedder: an encoder and a rule that makes a text of a request; each text is embedded once and kept on disk."""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from jaxtyping import Float
from safetensors import SafetensorError
from safetensors.numpy import load_file, save

from moejax.embed.sentence import sentences
from moejax.experts.folder import write_bytes
from moejax.models.base import Base
from moejax.parallel import hosts
from moejax.types import UserError

RULE = "request"  # the text, a space, what is asked of it


def said(text: str, instruction: str) -> str:
    """What a request says, by the rule: the text and what is asked of it."""
    return f"{text} {instruction}".strip()


@dataclass(frozen=True, eq=False)
class Embedder:
    """base: an encoder; folder: where vectors are kept, None: nowhere."""

    base: Base
    folder: Path | None = None
    progress: bool = False

    @property
    def name(self) -> str:
        """What its vectors are of: 16 digits of the encoder's fingerprint, and the rule."""
        return f"{self.base.fingerprint[:16]}-{RULE}"

    def __call__(self, texts: Sequence[str]) -> Float[np.ndarray, "n q"]:
        """Unit vectors of texts; those that were embedded before are read, by encoder, rule and hash of the text."""
        keys, known = [_hash(text) for text in texts], self._read()
        new = dict(zip(keys, texts, strict=True))
        todo = hosts.first(lambda: [i for i, key in enumerate(new) if key not in known])
        if todo:
            lacking = [list(new)[i] for i in todo]
            made = sentences(self.base, [new[key] for key in lacking], progress=self.progress)
            known |= dict(zip(lacking, made, strict=True))
            hosts.write(lambda: self._write(known))
        width = self.base.model.config.width  # pyright: ignore[reportAttributeAccessIssue]
        return np.stack([known[key] for key in keys]) if keys else np.zeros((0, width), np.float32)

    def _read(self) -> dict[bytes, Float[np.ndarray, "q"]]:
        if self.folder is None or not (path := self.folder / f"{self.name}.safetensors").exists():
            return {}
        try:
            found = load_file(path)
            return {
                key.tobytes(): vector for key, vector in zip(found["texts"], found["vectors"], strict=True)
            }
        except (OSError, ValueError, KeyError, SafetensorError) as error:
            raise UserError(f"{path}: not whole ({error}); delete it and run again") from error

    def _write(self, known: dict[bytes, Float[np.ndarray, "q"]]) -> None:
        if self.folder is None:
            return
        self.folder.mkdir(parents=True, exist_ok=True)
        texts = np.frombuffer(b"".join(known), np.uint8).reshape(len(known), -1)
        data = save({"texts": texts, "vectors": np.stack(list(known.values()))})
        write_bytes(self.folder / f"{self.name}.safetensors", data)


def _hash(text: str) -> bytes:
    return hashlib.sha256(text.encode()).digest()
