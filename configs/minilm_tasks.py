"""Real input: MiniLM-L6 over public classification tasks, scored by similarity between text and label description.

    python train.py --config configs/minilm_tasks.py --data-dir FOLDER
    python eval.py  --config configs/minilm_tasks.py --data-dir FOLDER

FOLDER holds the tasks as JSONL (docs/data.md). A seed takes 15 to 26 minutes on 2 CPU cores. `--fast` is a smaller
run of 4 min 27 s: 10 held-in tasks, shorter texts.
Held-out tasks are of other clusters than held-in ones, or of a cluster with another question.
"""

from dataclasses import replace

from moejax.config import Config, DataConfig
from moejax.train.experts import Recipe
from moejax.train.optimiser import Optimiser

METHODS = (
    "base", "uniform", "uniform(factor)", "arrow", "arrow(factor)",
    "phatgoose(steps=30, batch=16)", "average_activation",
    "task_arithmetic", "token_gate(steps=60)", "meteora(steps=60)", "multitask(steps=400)",
    "best_single", "mole(steps=40, rate=3e-4)", "own_expert", "best_single(test)",
)  # fmt: skip


def config() -> Config:
    """Sixteen held-in and five held-out tasks."""
    return Config(
        data=DataConfig(
            source="folder",
            held_in=(
                "sst2", "tweet_sentiment", "tweet_emotion", "tweet_hate", "tweet_offensive", "tweet_irony",
                "tweet_stance", "subj", "trec", "ag_news", "clickbait", "sms_spam", "banking77", "clinc150",
                "cad_nli", "sts_level",
            ),
            held_out=("mpqa", "cad_imdb", "hwu_scenario", "tweet_emoji", "wic"),
            window=48, train_rows=1000, validation_rows=100, test_rows=200,
        ),
        experts=Recipe(rank=8, alpha=16.0, layers=(4, 5), batch=16, optimiser=Optimiser(5e-3, 60)),
        methods=METHODS, settled_on="no rows of these tasks: rates and ranks are those of the quickstart",
    )  # fmt: skip


def fast() -> Config:
    """Ten held-in and five held-out tasks, texts of at most 32 tokens."""
    whole = config()
    return replace(
        whole,
        data=replace(
            whole.data,
            held_in=(
                "sst2", "tweet_emotion", "tweet_offensive", "tweet_irony", "subj", "trec", "ag_news", "clickbait",
                "sms_spam", "clinc150",
            ),
            held_out=("mpqa", "cad_imdb", "hwu_scenario", "tweet_sentiment", "banking77"),
            window=32, train_rows=512, validation_rows=40, test_rows=150,
        ),
        experts=replace(whole.experts, optimiser=Optimiser(5e-3, 50)),
        methods=(
            "base", "uniform", "uniform(factor)", "arrow", "arrow(factor)",
            "phatgoose(steps=25, batch=16)", "average_activation",
            "task_arithmetic", "token_gate", "meteora(steps=30)", "multitask(steps=200)",
            "best_single", "mole(steps=20, rate=3e-4)", "own_expert", "best_single(test)",
        ),
    )  # fmt: skip
