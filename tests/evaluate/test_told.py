"""Ranked options by hand and by lm_eval's rule: which rows, which sums, which lengths."""

import numpy as np
import pytest
import tiny

from moejax.adapted import Adapted
from moejax.evaluate import told as module
from moejax.evaluate.asked import Asked
from moejax.evaluate.told import told
from moejax.train.rows import ArrayRows
from moejax.types import Batch

OPTIONS = (("no", "certainly not"), ("a", "bb", "a long answer"), ("no", "certainly not"))
LOGP = np.array([-4.0, -13.0, -3.0, -2.0, -6.0, -1.0, -14.0])
RIGHT = np.array([1, 2, 0])


def asked() -> Asked:
    """Three rows with two, three and two options; sizes in characters, bytes and tokens."""
    flat = [text for options in OPTIONS for text in options]
    row = np.repeat(np.arange(3), [len(options) for options in OPTIONS])
    size = np.array([(len(text), len(text.encode()), len(text.split())) for text in flat])
    nothing = np.zeros((len(flat), 1), np.int32)
    return Asked(ArrayRows(Batch(nothing, nothing > 0, nothing > 0), np.arange(len(flat))), row, size, RIGHT)


@pytest.fixture
def found(monkeypatch):
    monkeypatch.setattr(module, "likelihoods", lambda *_: LOGP)
    return told(Adapted(tiny.base("decoder").model), {}, asked(), None, 4, 1)


def test_each_row_has_its_own_options_and_lengths(found):
    assert found["choice"].tolist() == [0, 1, 0]
    assert found["choice_norm"].tolist() == [1, 2, 0]  # -4/2 < -13/13, -2/2 < -6/13, -1/2 > -14/13
    assert found["loss"].tolist() == [13.0, 6.0, 1.0]
    assert found["tokens"].tolist() == [2, 3, 1] and found["bytes"].tolist() == [13, 13, 2]


@pytest.mark.parity
def test_choices_are_those_of_lm_eval(found):
    from lm_eval.api.task import ConfigurableTask

    task = object.__new__(ConfigurableTask)
    task.OUTPUT_TYPE = "multiple_choice"
    task._config = type("Config", (), {"process_results": None, "use_prompt": None, "repeats": 1})()
    task._metric_fn_list = {"acc": None, "acc_norm": None}
    task.multiple_input = task.multiple_target = 0
    ends = np.cumsum([len(options) for options in OPTIONS])[:-1]
    for i, part in enumerate(np.split(LOGP, ends)):
        task.doc_to_choice = lambda doc, i=i: list(OPTIONS[i])
        task.doc_to_target = lambda doc, i=i: int(RIGHT[i])
        said = task.process_results({}, [(float(value), False) for value in part])
        assert said["acc"] == (found["choice"][i] == RIGHT[i])
        assert said["acc_norm"] == (found["choice_norm"][i] == RIGHT[i])
