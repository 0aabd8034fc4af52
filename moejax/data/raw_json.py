"""Raw forms in JSON."""

import json
import re
from collections.abc import Callable

from moejax.data.cuts import Raw, Raws, distinct, fold, ordered
from moejax.data.raw_forms import VAL, Files, Form, decoded, held_back, lines_of


def splits_json(path: str) -> Form:
    """CLINC150: {split: [[text, label], ...]}."""

    def parse(files: Files) -> Raws:
        whole = json.loads(decoded(files, path))
        return {split: [Raw(text, label.replace("_", " ")) for text, label in whole[name]]
                for split, name in VAL.items()}  # fmt: skip

    return Form((path,), parse)


def examples_json(name: str, target: Callable[[str], str] = str) -> Form:
    """Instruction induction: {"examples": {n: {input, output}}}, to induce from and to execute (the test).

    Some induce rows join the test, since the official one is small. Of a list of outputs the first is taken.
    """
    induce, execute = paths = tuple(f"data/raw/{part}/{name}.json" for part in ("induce", "execute"))

    def rows(files: Files, path: str) -> list[Raw]:
        found = []
        for one in json.loads(decoded(files, path))["examples"].values():
            output = one["output"]
            found.append(Raw(one["input"], target(output[0] if isinstance(output, list) else output)))
        return found

    def parse(files: Files) -> Raws:
        test = rows(files, execute)
        known = {fold(row.input) for row in test}
        rest = [row for row in rows(files, induce) if fold(row.input) not in known]
        rest = distinct(ordered("ii_" + name, rest))
        tenth = len(rest) // 10
        first, last = min(500, max(1, tenth)), min(400, tenth)
        last += first
        return {"test": test + rest[first:last], "validation": rest[:first], "train": rest[last:]}

    return Form(paths, parse)


def questions_jsonl(task: str, folder: str) -> Form:
    """GSM8K: {question, answer} a line; the calculator's marks are taken out; validation is held back."""
    train, test = f"{folder}/train.jsonl", f"{folder}/test.jsonl"

    def rows(files: Files, path: str) -> list[Raw]:
        ones = [json.loads(line) for line in lines_of(files, path) if line]
        return [Raw(one["question"], re.sub(r"<<.*?>>", "", one["answer"])) for one in ones]

    return Form((train, test), lambda files: held_back(task, rows(files, train), rows(files, test)))


def options_json(task: str, path: str) -> Form:
    """BIG-Bench Hard: {"examples": [{input, target}]}, options found in the text; never for training."""

    def parse(files: Files) -> Raws:
        rows = []
        for one in json.loads(decoded(files, path))["examples"]:
            text, target = one["input"].strip(), one["target"].strip()
            options = _options(text, target)
            rows.append(Raw(text, target, options if options and target in options else None))
        rows = ordered(task, rows)
        return {"train": [], "validation": rows[:50], "test": rows[50:]}

    return Form((path,), parse)


def _options(text: str, target: str) -> tuple[str, ...] | None:
    if re.search(r"\n\(A\) ", text):
        return tuple(re.findall(r"^(\([A-R]\)) ", text, re.MULTILINE))
    if re.search(r"\nOptions:\n- ", text):
        return tuple(re.findall(r"^- (.+)$", text, re.MULTILINE))
    for options in (("yes", "no"), ("Yes", "No"), ("True", "False"), ("valid", "invalid")):
        if target in options:
            return options
    return None
