"""What contributors add to a pool that is only read: for whom, once, and never in the experts' own folders."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import tiny

from moejax import methods
from moejax.experts import files
from moejax.experts.expert import Expert
from moejax.experts.pool import Pool, read_pool
from moejax.method_row import parse_row
from moejax.stages.make import key_of
from moejax.train.contributed import Stage, contributed, digest, marked
from moejax.train.run_folder import open_run
from moejax.train.work import Work

BASE = tiny.base("encoder")
TASKS = {"ann": "animal", "bob": "food"}
OWN = {name: tiny.rows(BASE, 4) for name in TASKS}


class Contributors:
    """A method whose contributors hand over gates of one value a call, and remember whom they were asked for."""

    def __init__(self, extras: tuple[str, ...] = ("gate",)):
        self.extras, self.asked = extras, []

    def __call__(self, config, base, pool, rows, work):
        self.asked.append(pool.names)
        assert set(rows) == set(pool.names)
        value, sites = float(len(self.asked)), pool.bank.sites.items()
        given = {path: np.full((s.a.shape[0], s.a.shape[-1]), value) for path, s in sites}
        return {name: dict.fromkeys(self.extras, given) for name in pool.names}

    @property
    def method(self):
        method = methods.load("phatgoose")
        card = replace(method.card, extras=frozenset(self.extras))
        return replace(method, contribute=self, card=card)


@pytest.fixture
def folder(tmp_path) -> Path:
    for name in ("ann", "bob", "cy"):
        write(tmp_path / "experts" / name)
    return tmp_path / "experts"


def write(path: Path, scale: float = 1.0) -> None:
    one = tiny.expert(BASE, path.name)
    loras = {site: lora._replace(alpha=lora.alpha * scale) for site, lora in one.loras.items()}
    files.write(path, Expert(path.name, {}, loras), BASE.sites, fingerprint=BASE.fingerprint)


def read(folder: Path, tasks=TASKS) -> Pool:
    pool, _ = read_pool(folder, BASE.sites, BASE.shapes, BASE.layers, BASE.fingerprint)
    return marked(pool, tasks)


@pytest.fixture
def ask(folder, tmp_path):
    """Let contributors add gates, in the one run folder; gives (who was asked, the pool)."""

    def run(pool: Pool, own=OWN, key=None):
        contributors = Contributors()
        with open_run(tmp_path / "run", {}) as opened:
            stage = Stage(opened, "contribute/phatgoose", {"steps": 2} if key is None else key)
            work = Work(tmp_path / "work")
            pool = contributed(contributors.method, None, BASE, pool, own, contributors.extras, stage, work)
        return contributors.asked, pool

    return run


def gate(pool: Pool, name: str) -> float:
    """The value of an expert's gate where it adapts the base."""
    gates = pool.allow("gate").extra("gate")[pool.index(name)]
    return float(gates[tiny.EVERYWHERE][0, 0])


def test_those_with_rows_are_asked_once_and_nothing_is_written_to_them(folder, ask):
    before = {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    asked, pool = ask(read(folder))
    assert asked == [("ann", "bob")]
    assert pool.lacking("gate") == ("cy",)
    assert gate(pool.take(["ann", "bob"]), "bob") == 1.0
    asked, again = ask(read(folder))
    assert asked == []
    assert gate(again.take(["ann", "bob"]), "ann") == 1.0
    assert {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()} == before


def test_what_an_expert_brings_is_used_as_it_is(folder, ask):
    pool = read(folder)
    given = {p: np.full((s.a.shape[0], s.a.shape[-1]), 7.0) for p, s in pool.bank.sites.items()}
    pool.with_extras({"bob": {"gate": given}}).save_extras(folder)
    asked, pool = ask(read(folder))
    assert asked == [("ann",)]
    assert gate(pool.take(["ann", "bob"]), "bob") == 7.0


def test_of_two_extras_only_the_lacking_one_is_taken(folder, tmp_path):
    """`ann` brings a gate and no activation: the contributor makes both, and the gate stays the one it brought."""
    contributors, pool = Contributors(("gate", "activation")), read(folder)
    given = {p: np.full((s.a.shape[0], s.a.shape[-1]), 7.0) for p, s in pool.bank.sites.items()}
    pool.with_extras({"ann": {"gate": given}}).save_extras(folder)
    with open_run(tmp_path / "run", {}) as opened:
        stage = Stage(opened, "contribute/both", {})
        pool = contributed(
            contributors.method,
            None,
            BASE,
            read(folder),
            OWN,
            contributors.extras,
            stage,
            Work(tmp_path / "work"),
        )
    some = pool.take(["ann", "bob"])
    assert (gate(some, "ann"), gate(some, "bob")) == (7.0, 1.0)
    assert not some.lacking("activation")


def test_only_what_changed_is_made_anew(folder, ask):
    ask(read(folder))
    write(folder / "ann", scale=2.0)
    assert ask(read(folder))[0] == [("ann",)]
    assert ask(read(folder, TASKS | {"bob": "mood"}))[0] == [("bob",)]
    assert ask(read(folder, TASKS | {"bob": "mood"}))[0] == []
    assert ask(read(folder, TASKS), key={"steps": 3})[0] == [("ann", "bob")]


def test_a_row_depends_on_tasks_and_only_where_it_reads_them_on_extras(folder):
    arrow, phatgoose = parse_row("arrow"), parse_row("phatgoose")
    one = read(folder)
    assert key_of(arrow, one) != key_of(arrow, read(folder, TASKS | {"bob": "mood"}))
    given = {p: np.ones((s.a.shape[0], s.a.shape[-1])) for p, s in one.bank.sites.items()}
    one.with_extras({"cy": {"gate": given}}).save_extras(folder)
    other = read(folder)
    assert key_of(arrow, one) == key_of(arrow, other)
    assert key_of(phatgoose, one) != key_of(phatgoose, other)


def test_a_digest_tells_keys_apart_and_not_their_order():
    assert digest({"a": 1, "b": (2,)}) == digest({"b": [2], "a": 1})
    assert digest({"a": 1}) != digest({"a": 2})
