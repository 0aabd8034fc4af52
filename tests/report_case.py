"""A small comparison as plain data, and a reader of pages that sees whether they are whole."""

from html.parser import HTMLParser

VOID = {"wbr", "meta", "br"}
TASKS = {"ann": [0.7, 0.3], "bob": [0.2, 0.8], "new": [0.5, 0.5]}


def row(label, sight=0, **more):
    """A row of results.json."""
    against = {"difference": 0.1, "low": -0.05, "high": 0.2}
    cell = {"accuracy": 0.5, "balanced_accuracy": 0.625, "against_uniform": against}
    tasks = {task: {"": {"accuracy": 0.5, "balanced_accuracy": 0.25, "rows": 4}} for task in TASKS}
    made = {
        "label": label, "row": label, "needs": [], "extras": [], "sight": sight, "tasks": tasks,
        "held_in": {"": cell}, "held_out": {"": cell}, "options": {"k": 2}, "chosen": {},
        "cost": {"trained": 1200, "fit_seconds": 1.0, "time": 1.5, "memory": 1.0},
    }  # fmt: skip
    return made | more


def results():
    """results.json of five methods."""
    return {
        "title": "small, seed 0",
        "seeds": [0],
        "groups": [""],
        "tasks": {"held_in": ["ann", "bob"], "held_out": ["new"]},
        "rows": [
            row("uniform"),
            row("own_expert", 4, needs=["test_task"], held_out=None),
            row("phatgoose", 1, needs=["own"], extras=["gate"]),
            row("arrow", chosen={"k": "6 labelled rows"}),
            {
                "label": "mole",
                "row": "mole",
                "sight": 3,
                "needs": ["target_labels"],
                "extras": [],
                "not_applicable": "ann has no gate",
            },
        ],
        "settled_on": "validation rows",
        "config": {"seed": 0, "base": {"source": "tiny"}},
        "keys": {"data": "d4ta", "base": "ba5e", "code": "c0de"},
        "versions": {"jax": "0.10.2"},
        "device": "cpu × 1",
        "commit": "abc+changes",
    }


def record(unit="token", experts=("ann", "bob")):
    """A routing record of two sites, one of them in one layer."""
    site = {"layers": [0, 1], "weight": [[0.75, 0.25], [0.5, 0.5]], "load": [[1.0, 0.0], [0.5, 0.5]]}
    top = {"layers": [1], "weight": [[0.1, 0.9]], "load": [[0.0, 1.0]], "entropy": [0.2]}
    text = {
        "task": "ann", "answer": "yes", "tokens": [" a", " cat", "s", " sat"], "expert": [0, 1, 1, None],
        "weight": [0.4, 0.8, 0.6, 0.0],
    }  # fmt: skip
    return {
        "unit": unit, "experts": list(experts), "sites": {"q": site | {"entropy": [0.4, 0.6]}, "down": top},
        "tasks": TASKS, "rows": 12, "texts": [text] if unit == "token" else [],
    }  # fmt: skip


def records():
    """Routing of the methods that have some."""
    return {"arrow": record(), "phatgoose": record(), "own_expert": {"none": "nothing is routed"}}


METRICS = [
    {"time": 1.0, "stage": stage, "loop": loop, "step": step, "loss": 2.0 / (1 + step)}
    for stage, loop in (("experts", "experts"), ("contribute/phatgoose", "gates"))
    for step in range(4)
]
MADE = {"command": "python eval.py --config configs/small.py", "date": "2026-01-02 03:04 UTC"}


class Page(HTMLParser):
    """What a page holds; reading raises AssertionError where elements do not close as they opened."""

    def __init__(self, text):
        super().__init__()
        self.open, self.tags, self.said, self.attributes = [], [], [], []
        self.feed(text)
        self.close()
        assert not self.open, f"not closed: {self.open}"

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        self.attributes += attrs
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open and self.open[-1] == tag, f"</{tag}> closes {self.open[-1:]}"
        self.open.pop()

    def handle_data(self, data):
        if "style" not in self.open:
            before = self.said.pop() if self.tags[-1:] == ["wbr"] else ""
            self.said.append(before + data)

    @property
    def text(self):
        """All that is said, the style sheet apart."""
        return " ".join(self.said)

    def values(self, name):
        """What an attribute is, wherever it is given."""
        return [value for key, value in self.attributes if key == name]
