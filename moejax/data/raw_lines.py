"""Raw forms with a text a line."""

from collections.abc import Mapping

from moejax.data.cuts import Raw, Raws, resplit
from moejax.data.raw_forms import VAL, Files, Form, by_split, held_back, lines_of


def tweeteval(folders: Mapping[str, str], labels: tuple[str, ...]) -> Form:
    """TweetEval: `<split>_text.txt` beside `<split>_labels.txt`; {folder: form of the text, {} the tweet}."""
    paths = tuple(
        f"datasets/{folder}/{name}_{part}.txt"
        for folder in folders for name in VAL.values() for part in ("text", "labels")
    )  # fmt: skip

    def parse(files: Files) -> Raws:
        return {split: [row for at, form in folders.items() for row in _tweets(files, at, name, form, labels)]
                for split, name in VAL.items()}  # fmt: skip

    return Form(paths, parse)


def tweeteval_resplit(task: str, folder: str, labels: tuple[str, ...]) -> Form:
    """TweetEval, train and test both cut from the official test file (the training file is very large)."""
    paths = tuple(
        f"datasets/{folder}/{name}_{part}.txt" for name in ("val", "test") for part in ("text", "labels")
    )

    def parse(files: Files) -> Raws:
        cut = resplit(task, _tweets(files, folder, "test", "{}", labels))
        return {**cut, "validation": _tweets(files, folder, "val", "{}", labels)}

    return Form(paths, parse)


def _tweets(files: Files, folder: str, name: str, form: str, labels: tuple[str, ...]) -> list[Raw]:
    texts, numbers = (lines_of(files, f"datasets/{folder}/{name}_{part}.txt") for part in ("text", "labels"))
    return [
        Raw(form.format(_entities(text)), labels[int(number)])
        for text, number in zip(texts, numbers, strict=False) if number.strip()
    ]  # fmt: skip


def _entities(text: str) -> str:
    return text.replace("&amp;", "&").replace("&lt;", "<").replace("&gt;", ">")


def numbered(paths: Mapping[str, str], labels: tuple[str, ...]) -> Form:
    """Lines of a digit, the label, a blank and the text, in latin-1."""

    def rows(files: Files, path: str) -> list[Raw]:
        known = {str(number): label for number, label in enumerate(labels)}
        lines = lines_of(files, path, "latin-1")
        return [Raw(line[2:], known[line[0]]) for line in lines if line[:1] in known]

    return by_split(paths, rows)


def file_per_label(task: str, labels: Mapping[str, str], encoding: str = "utf-8") -> Form:
    """{path: label}: a text a line, all of one label, gzipped or not; no splits."""

    def parse(files: Files) -> Raws:
        rows = [
            Raw(line, label) for path, label in labels.items() for line in lines_of(files, path, encoding)
        ]
        return resplit(task, [row for row in rows if row.input.strip()])

    return Form(tuple(labels), parse)


def coarse_and_fine(task: str, train: str, test: str, labels: Mapping[str, str]) -> Form:
    """TREC: `COARSE:fine text` lines, in latin-1; validation is held back from train."""

    def rows(files: Files, path: str) -> list[Raw]:
        lines = [line for line in lines_of(files, path, "latin-1") if ":" in line]
        return [Raw(line.split(" ", 1)[1], labels[line.split(":")[0]]) for line in lines]

    return Form((train, test), lambda files: held_back(task, rows(files, train), rows(files, test)))


def tab_lines(task: str, path: str) -> Form:
    """`label<TAB>text` lines; no splits."""

    def parse(files: Files) -> Raws:
        lines = [line.split("\t", 1) for line in lines_of(files, path) if "\t" in line]
        return resplit(task, [Raw(text, label) for label, text in lines])

    return Form((path,), parse)
