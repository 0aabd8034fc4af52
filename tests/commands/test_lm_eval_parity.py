"""lm_eval's tasks on a base with experts: numbers of its own Hugging Face backend, through its own command line too."""

import json
import re
from pathlib import Path

import pytest
import shell

from moejax.__main__ import run
from moejax.types import UserError

pytestmark = [pytest.mark.parity, pytest.mark.filterwarnings("ignore::FutureWarning")]

ROWS = [
    {"text": "the ant ", "choices": ["eats.", "is", "an"], "answer": 1},
    {"text": "", "choices": ["bees", "the ant eats the bee. so"], "answer": 0},
    {"text": "a cat, an ant and a bee: which ", "choices": ["one?", "of them"], "answer": 0},
    {"text": "so ", "choices": ["many", "few", "the ant and the bee and the cat"], "answer": 2},
]
DATA = "dataset_path: json\ndataset_kwargs:\n  data_files:\n    test: {file}\ntest_split: test\n"
TASKS = {
    "choice": "output_type: multiple_choice\ndoc_to_text: '{{text}}'\ndoc_to_choice: choices\ndoc_to_target: answer\n"
    "target_delimiter: ''\nmetric_list:\n  - metric: acc\n  - metric: acc_norm\n",
    "rolling": "output_type: loglikelihood_rolling\ndoc_to_text: ''\ndoc_to_target: '{{long}}'\n"
    "metric_list:\n  - metric: byte_perplexity\n",
    "said": "output_type: generate_until\ndoc_to_text: 'say {{text}}'\ndoc_to_target: 'x'\ngeneration_kwargs:\n"
    "  until: ['{stop}']\n  max_gen_toks: 12\n  do_sample: false\nmetric_list:\n  - metric: exact_match\n",
}


@pytest.fixture(scope="module")
def tasks(tmp_path_factory) -> Path:
    """A folder of three tasks, over one local file."""
    folder = tmp_path_factory.mktemp("tasks")
    long = [row | {"long": row["text"] + ", ".join(row["choices"]) * 3 * i} for i, row in enumerate(ROWS, 1)]
    (folder / "rows.jsonl").write_text("\n".join(map(json.dumps, long)))
    for name, text in TASKS.items():
        whole = (
            f"task: moe_{name}\n"
            + DATA.replace("{file}", str(folder / "rows.jsonl"))
            + text.replace("{stop}", "n")
        )
        (folder / f"{name}.yaml").write_text(whole)
    return folder


@pytest.fixture(scope="module", autouse=True)
def offline(tmp_path_factory):
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("HF_DATASETS_CACHE", str(tmp_path_factory.mktemp("cache")))
        yield


def evaluated(model, tasks):
    """Responses of every row of every task, and the metrics."""
    import lm_eval
    from lm_eval.tasks import TaskManager

    manager = TaskManager(include_path=str(tasks), include_defaults=False)
    found = lm_eval.simple_evaluate(
        model=model,
        tasks=[f"moe_{name}" for name in TASKS],
        task_manager=manager,
        bootstrap_iters=0,
        log_samples=True,
    )
    responses = {
        name: [sample["resps"] for sample in sorted(samples, key=lambda one: one["doc_id"])]
        for name, samples in found["samples"].items()
    }
    return responses, found["results"]


def theirs(**options):
    from lm_eval.models.huggingface import HFLM

    return HFLM(device="cpu", dtype="float32", batch_size=3, max_length=40, **options)


def ours(**options):
    from moejax.commands.harness import Moejax

    return Moejax(batch_size=3, max_length=40, **options)


def numbers(responses):
    """Every log-likelihood, flattened."""
    flat = [one[0] if isinstance(one, list) else one for row in responses for one in row]
    return [one[0] if isinstance(one, tuple) else one for one in flat]


@pytest.mark.parametrize("expert", ["", "bee"])
def test_numbers_and_texts_are_those_of_the_hf_backend(tasks, expert):
    root = shell.shared()
    adapter = str(root / "experts" / expert)
    peft = {"peft": adapter} if expert else {}
    routed = {"experts": adapter, "method": "uniform"} if expert else {}
    there, their_results = evaluated(theirs(pretrained=str(root / "base"), **peft), tasks)
    here, our_results = evaluated(ours(base=str(root / "base"), **routed), tasks)
    assert here["moe_said"] == there["moe_said"]
    assert any(text for row in here["moe_said"] for text in row[0])
    for name in ("moe_choice", "moe_rolling"):
        assert numbers(here[name]) == pytest.approx(numbers(there[name]), rel=1e-5, abs=1e-5)
        assert max(map(abs, numbers(here[name]))) > 10
    greedy = [[[g for (_, g) in one] for one in row] for row in here["moe_choice"]]
    assert greedy == [[[g for (_, g) in one] for one in row] for row in there["moe_choice"]]
    for task, metrics in their_results.items():
        for metric, value in metrics.items():
            if isinstance(value, float):
                assert our_results[task][metric] == pytest.approx(value, rel=1e-5)


def test_the_experts_move_the_numbers(tasks):
    base, experts = str(shell.shared() / "base"), str(shell.shared() / "experts")
    bare, _ = evaluated(ours(base=base), tasks)
    routed, _ = evaluated(ours(base=base, experts=experts, method="arrow(k=2)"), tasks)
    moved = zip(numbers(bare["moe_choice"]), numbers(routed["moe_choice"]), strict=True)
    assert max(abs(a - b) for a, b in moved) > 0.1


def test_its_own_command_line(tasks, tmp_path, capsys):
    root = shell.shared()
    words = ["--base", str(root / "base"), f"--experts={root / 'experts'}", "--method", "arrow(k=2)"]
    theirs = [
        "--tasks",
        "moe_choice",
        "moe_said",
        "--include_path",
        str(tasks),
        "--output_path",
        str(tmp_path),
    ]
    assert run(["lm-eval", *words, *theirs, "--batch_size", "4", "--log_samples"]) == 0
    assert "moe_choice" in capsys.readouterr().out
    (file,) = tmp_path.rglob("results_*.json")
    found = json.loads(file.read_text())
    told = found["config"]
    assert told["method"] == "arrow(k=2)" and set(told["experts"]) == set(shell.NAMES)
    made = ours(base=str(root / "base"), experts=str(root / "experts"), method="arrow(k=2)")
    _, expected = evaluated(made, tasks)
    for metric in ("acc,none", "acc_norm,none"):
        assert found["results"]["moe_choice"][metric] == pytest.approx(expected["moe_choice"][metric])


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"base": "/absent"}, "there is no folder /absent"),
        ({"method": "arow"}, "did you mean 'arrow'"),
        ({"batch_size": "auto"}, "--batch_size is 'auto': expected a number of rows"),
        ({"rank": 3}, "model_args does not know '--rank=3'"),
        ({"dtype": "float8"}, "Expected one of"),
    ],
)
def test_what_is_wrong_is_said_in_one_sentence(options, said):
    from moejax.commands.harness import Moejax

    with pytest.raises(UserError, match=re.escape(said)):
        Moejax(**{"base": str(shell.shared() / "base")} | options)


def test_generation_options_that_are_not_known_are_refused():
    with pytest.raises(UserError, match="generation option 'num_beams' is not known here"):
        ours(base=str(shell.shared() / "base"))._settings({"num_beams": 2})


@pytest.mark.parametrize(
    ("words", "said"),
    [(["--base", "/absent", "--tasks", "moe_said"], "there is no folder /absent"),
     (["--base", "/absent", "--tasks", "moe_nothing"], "lm_eval: Tasks not found: moe_nothing")],
)  # fmt: skip
def test_the_command_says_it_too(tasks, capsys, words, said):
    assert run(["lm-eval", *words, "--include_path", str(tasks)]) == 2
    errors = [line for line in capsys.readouterr().err.splitlines() if line.startswith("error: ")]
    assert len(errors) == 1 and said in errors[0]


def test_chats_go_through_the_template():
    made = ours(base=str(shell.shared() / "base"))
    said = [{"role": "user", "content": "hi"}]
    there = theirs(pretrained=str(shell.shared() / "base"))
    assert made.apply_chat_template(said) == there.apply_chat_template(said) == "<user>hi<assistant>"
    assert made.tokenizer_name == there.tokenizer_name
    assert made.chat_template(True) == there.chat_template(True)


def test_a_continuation_longer_than_the_base_sees_is_refused():
    with pytest.raises(UserError, match="a continuation has 50 tokens, but the base sees 40"):
        ours(base=str(shell.shared() / "base"))._loglikelihood_tokens([(None, [1], [2] * 50)])
