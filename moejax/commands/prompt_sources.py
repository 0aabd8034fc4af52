"""Prompts as a command line gives them: as words, in a file (a line each, or JSONL), or on standard input."""

import json
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from moejax.models.base import Base
from moejax.models.prompts import chat, encode
from moejax.types import UserError


class Prompt(NamedTuple):
    """text: what was asked; messages: the whole conversation, where the chat template is to put it into words."""

    text: str
    messages: tuple[Mapping[str, str], ...] = ()
    source: str = "the prompt"


def collect(words: Sequence[str], file: str, as_chat: bool, system: str) -> list[Prompt]:
    """The prompts: `words`, else the lines of `file` (`-`: of standard input), else standard input as one.

    A file *.jsonl has an object a line: {"prompt": text}, or {"messages": [{"role": …, "content": …}, …]}.
    Raises UserError where there is none, one is empty, or a line is not of that form.
    """
    if system and not as_chat:
        raise UserError("--system is a message of a chat: say --chat too, or put it into the prompt")
    if words and file:
        raise UserError("prompts are given both as words and by --file: choose one")
    if words:
        found = [Prompt(word, source=f"prompt {i + 1}") for i, word in enumerate(words)]
    elif file:
        found = list(_of_file(file))
    elif sys.stdin.isatty():
        raise UserError("which prompt? Say it in quotes, name a file by --file, or send it on standard input")
    else:
        found = [Prompt(sys.stdin.read().rstrip("\n"), source="the prompt on standard input")]
    if not found:
        raise UserError(f"{file}: no prompt in it")
    for prompt in found:
        if not prompt.text.strip():
            raise UserError(f"{prompt.source} is empty")
    return [_conversation(prompt, system) if as_chat else prompt for prompt in found]


def _conversation(prompt: Prompt, system: str) -> Prompt:
    messages = prompt.messages or ({"role": "user", "content": prompt.text},)
    first = ({"role": "system", "content": system},) if system else ()
    return prompt._replace(messages=(*first, *messages))


def _of_file(file: str) -> Iterator[Prompt]:
    try:
        text = sys.stdin.read() if file == "-" else Path(file).expanduser().read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"{file}: cannot be read as text ({error})") from None
    for number, line in enumerate(text.split("\n"), 1):
        if line.strip():
            line, source = line.rstrip("\r"), f"{file}:{number}"
            yield _of_json(line, source) if file.endswith(".jsonl") else Prompt(line, source=source)


def _of_json(line: str, source: str) -> Prompt:
    try:
        found: Any = json.loads(line)
    except (ValueError, RecursionError) as error:
        raise UserError(f"{source}: not valid JSON: {error}") from None
    if isinstance(found, dict) and isinstance(found.get("prompt"), str):
        return Prompt(found["prompt"], source=source)
    messages = found.get("messages") if isinstance(found, dict) else None
    if isinstance(messages, list) and messages and all(_is_message(one) for one in messages):
        return Prompt(messages[-1]["content"], tuple(messages), source)
    raise UserError(
        f'{source}: expected {{"prompt": text}} or {{"messages": [{{"role": text, "content": text}}, …]}}'
    )


def _is_message(one: Any) -> bool:
    return isinstance(one, dict) and all(isinstance(one.get(key), str) for key in ("role", "content"))


def tokens(base: Base, prompt: Prompt) -> list[int]:
    """The ids of a prompt; a conversation in the words of the base's chat template, which holds its special tokens."""
    if prompt.messages:
        return encode(base, chat(base, prompt.messages), special=False)
    return encode(base, prompt.text)
