"""TFDS builders, one for each family of tasks, that write array_record files without TensorFlow.

Imported by `prepared.py` alone: TFDS is slow to import and notes every builder class that it sees.
"""

from collections.abc import Iterator
from typing import Any

import numpy as np
import tensorflow_datasets as tfds

from moejax.data.tasks import SPLITS, Task


class _Tasks(tfds.core.GeneratorBasedBuilder, skip_registration=True):
    """Several tasks in one data set, each row with its task's name and its place in the task's split."""

    VERSION = tfds.core.Version("1.0.0")

    def __init__(self, *, tasks: tuple[Task, ...] = (), **options: Any):
        self.tasks = tasks
        super().__init__(file_format="array_record", **options)

    def _info(self) -> tfds.core.DatasetInfo:
        text = tfds.features.Text()
        features = tfds.features.FeaturesDict({
            "task": text, "row": np.int32, "input": text, "instruction": text, "target": text, "group": text,
            "choices": tfds.features.Sequence(text),
        })  # fmt: skip
        return self.dataset_info_from_configs(features=features, description=self.__doc__)

    def _split_generators(self, dl_manager: Any) -> dict[str, Iterator]:
        filled = [split for split in SPLITS if any(task.rows[split] for task in self.tasks)]
        return {split: self._generate_examples(split) for split in filled}

    def _generate_examples(self, split: str) -> Iterator[tuple[str, dict[str, Any]]]:
        for task in self.tasks:
            for number, row in enumerate(task.rows[split]):
                yield f"{task.name}/{number}", {
                    "task": task.name, "row": number, "input": row.input, "instruction": row.instruction,
                    "target": row.target, "group": row.group, "choices": list(row.choices or ()),
                }  # fmt: skip


class GeneratedSuite(_Tasks):
    """Texts generated from a seed: each carries many attributes, each task asks for one or two of them."""


class FolderTasks(_Tasks):
    """Tasks of a folder in the documented JSONL form: public ones, or anybody's own."""
