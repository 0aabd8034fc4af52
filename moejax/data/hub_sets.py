"""Published sets of the papers' recipes: the columns of their files, where those were read, and which are used how.

`--data hub:NAME --data-dir FOLDER` reads the files in FOLDER/NAME; nothing is fetched.
"""

from collections.abc import Mapping
from typing import Literal, NamedTuple

Kind = Literal["text", "texts", "number", "numbers"]
SPLIT = {
    "train": "train", "validation": "validation", "val": "validation", "valid": "validation", "dev": "validation",
    "test": "test",
}  # fmt: skip
"""How files (or a column) call a split -> what it is here."""


class HubSet(NamedTuple):
    """One published set.

    where   the set
    read    where the names of its columns were read
    columns all of them, and what they hold
    input, target   columns of text and answer; of a list of answers the longest is taken
    task    column that names a row's task; empty: the folder of a file that is called by its split, else the file
    split   column that names a row's split; empty: the file's name does, and what names none is train
    choices column of the options among which the answer is; empty: the answer is free text
    keep    column, and which of its values a row must have
    instruction   what is asked after every text
    files   how the files end
    parts   what its files are called, a file each; empty: they are called by their tasks
    templates     a folder holds one template of a task, and its name begins with the task's
    skip    what folders or files end in that are left out
    splits  what a split of the files is used as
    scored  its tasks are scored, and none has an expert
    """

    where: str
    read: str
    columns: Mapping[str, Kind]
    input: str
    target: str
    task: str = ""
    split: str = ""
    choices: str = ""
    keep: tuple[str, tuple[str, ...]] | None = None
    instruction: str = ""
    files: Literal["parquet", "jsonl", "json"] = "parquet"
    parts: tuple[str, ...] = ("train", "validation", "test")
    templates: bool = False
    skip: tuple[str, ...] = ()
    splits: Mapping[str, str] = SPLIT
    scored: bool = False


PHATGOOSE = "github.com/r-three/phatgoose at 4fd5790"
HUB = "huggingface.co/datasets"
_FLAN: dict[str, Kind] = {
    "inputs": "text", "targets": "text", "task_source": "text", "task_name": "text", "template_type": "text",
}  # fmt: skip
ALL = dict.fromkeys(SPLIT, "test")

SETS: dict[str, HubSet] = {
    "p3": HubSet(
        "bigscience/P3", f"{HUB}/bigscience/P3, data/anli_GPT_3_style_r1/info.train.json at 0d6d527",
        {
            "answer_choices": "texts", "inputs": "numbers", "inputs_pretokenized": "text", "targets": "numbers",
            "targets_pretokenized": "text",
        },
        "inputs_pretokenized", "targets_pretokenized", choices="answer_choices", templates=True, skip=("_score_eval",),
    ),
    "flan": HubSet(
        "Open-Orca/FLAN", f"{PHATGOOSE}, scripts/flan.py and FlanDataset in src/data/flat.py; the other two: "
        f"{HUB}/ryanmarten/open-orca-flan-judged, README.md at baa7b02",
        {
            "inputs": "text", "targets": "text", "_template_idx": "number", "_task_source": "text",
            "_task_name": "text", "_template_type": "text",
        },
        "inputs", "targets", task="_task_name", keep=("_template_type", ("zs_opt", "zs_noopt")), parts=("train",),
    ),
    "flan_flat": HubSet(
        "sordonia/flan-10k-flat", f"{HUB}/sordonia/flan-10k-flat, README.md at main (b705fa3)",
        {
            "source": "text", "target": "text", "task_name": "text", "task_source": "text", "template_type": "text",
            "template_idx": "number", "split": "text",
        },
        "source", "target", task="task_name", split="split", parts=("train",),
    ),
    "bigbench": HubSet(
        "tasksource/bigbench", f"{PHATGOOSE}, BigBenchDataset in src/data/bigbench.py",
        {"inputs": "text", "targets": "texts", "multiple_choice_targets": "texts", "multiple_choice_scores": "numbers"},
        "inputs", "targets", choices="multiple_choice_targets", instruction="Answer:",
        parts=("train", "validation"), splits=ALL, scored=True,
    ),
    "bbh": HubSet(
        "lukaemon/bbh", f"{PHATGOOSE}, BigBenchSampleDataset in src/data/bigbench.py",
        {"input": "text", "target": "text"}, "input", "target", instruction="Answer:", parts=("test",), scored=True,
    ),
    "lorahub": HubSet(
        "conceptofmind/FLAN_2022, a file a task", "github.com/sail-sg/lorahub at 2c99a1e, run.sh (--input_column "
        "inputs --output_column targets) and download_flan.py (task_name, template_type); task_source: "
        f"{HUB}/coref-data/flan2021_coreference_raw, README.md at 71754df",
        _FLAN, "inputs", "targets", keep=("template_type", ("zs_noopt",)), files="json", parts=(),
    ),
    "lorahub_bbh": HubSet(
        "data_bbh.zip of sail-sg/lorahub, release 0.1", "github.com/sail-sg/lorahub at 4a8ebdc, reproduce_bbh.py",
        {"context": "text", "completion": "text"}, "context", "completion", files="jsonl", skip=("few_shot",),
        parts=("example", "zero_shot", "few_shot"), splits={"example": "train", "zero_shot": "test"}, scored=True,
    ),
    "meteora": HubSet(
        "28 tasks as data/create_dataset.py of MeteoRA writes them",
        "github.com/NJUDeepEngine/meteora at 14c948e, data/create_dataset.py",
        {"prompt": "text", "response": "text"}, "prompt", "response", files="jsonl",
        parts=("train", "test"),
    ),
}  # fmt: skip
