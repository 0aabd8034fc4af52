"""Raw forms that are tables: comma, semicolon or tab between the columns."""

import csv
import io
import re
from collections.abc import Mapping

from moejax.data.cuts import Raw, Raws, plain, resplit
from moejax.data.raw_forms import DEV, Files, Form, by_split, decoded, held_back, table_of


def pairs_tsv(folder: str) -> Form:
    """Premise and hypothesis, tab-separated with a header, quotes as they are."""

    def rows(files: Files, path: str) -> list[Raw]:
        return [
            Raw(f"Premise: {row['sentence1']} Hypothesis: {row['sentence2']}", row["gold_label"])
            for row in table_of(files, path, "\t", quoted=False)
        ]

    return by_split({split: f"{folder}/{name}.tsv" for split, name in DEV.items()}, rows)


def reviews_tsv(folder: str) -> Form:
    """Sentiment and Text, tab-separated with a header; line breaks of HTML become blanks."""

    def rows(files: Files, path: str) -> list[Raw]:
        return [
            Raw(re.sub(r"<br\s*/?>", " ", row["Text"]), row["Sentiment"].lower())
            for row in table_of(files, path, "\t")
        ]

    return by_split({split: f"{folder}/{name}.tsv" for split, name in DEV.items()}, rows)


def intents_csv(task: str, train: str, test: str) -> Form:
    """BANKING77: text and category, with a header; validation is held back from train."""

    def rows(files: Files, path: str) -> list[Raw]:
        return [
            Raw(row["text"], row["category"].replace("_", " ").rstrip("?").lower())
            for row in table_of(files, path)
        ]

    return Form((train, test), lambda files: held_back(task, rows(files, train), rows(files, test)))


def scenarios_csv(task: str, paths: tuple[str, ...], names: Mapping[str, str]) -> Form:
    """HWU64: many small files separated by semicolons; the last file that has a text gives its scenario."""

    def parse(files: Files) -> Raws:
        found: dict[str, str] = {}
        for path in sorted(paths):
            for row in table_of(files, path, ";"):
                found[plain(row["answer_from_anno"] or "")] = row["scenario"]
        return resplit(task, [Raw(text, names.get(name, name)) for text, name in found.items() if text])

    return Form(paths, parse)


def news_csv(task: str, path: str, labels: tuple[str, ...]) -> Form:
    """AG news: number of the label, title, text; no header, left-over HTML entities; no splits."""
    mends = {"\\": " ", "#36;": "$", "#39;": "'", "&lt;": "<", "&gt;": ">", "quot;": '"'}

    def parse(files: Files) -> Raws:
        rows = []
        for number, title, text in csv.reader(io.StringIO(decoded(files, path))):
            whole = f"{title} {text}"
            for old, new in mends.items():
                whole = whole.replace(old, new)
            rows.append(Raw(whole, labels[int(number) - 1]))
        return resplit(task, rows)

    return Form((path,), parse)
