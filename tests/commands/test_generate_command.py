"""`python generate.py`: every flag, from files on disk to what stands on the screen; each refusal is one sentence."""

import importlib.util
import io
import json
import shutil
import subprocess
import sys
from functools import partial
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import own
import pytest
import shell
import tiny_folder
import world

from moejax import methods
from moejax.adapted import start, step
from moejax.commands.generate import Options
from moejax.commands.parse import flags
from moejax.config import BaseConfig, Config, plain
from moejax.contract import Fitted
from moejax.evaluate import router_file
from moejax.evaluate.completions import Settings, complete
from moejax.experts.pool import read_pool
from moejax.models.generate import generate
from moejax.models.prompts import encode
from moejax.models.weights import load
from moejax.train.run_folder import open_run
from moejax.types import Batch

ROOT = Path(__file__).parents[2]
PROMPT, NEW = "the ant ", ("--max-new", "10")


def script():
    """generate.py, as a module."""
    spec = importlib.util.spec_from_file_location("generate_script", ROOT / "generate.py")
    assert spec and spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


MAIN = script().main


@pytest.fixture(scope="module")
def root():
    return shell.shared()


@pytest.fixture
def ask(root, capsys):
    """Say words to the script: what it printed. The base and the experts are given unless a word names others."""

    def asking(*words, experts=True, status=0):
        given = [] if "--base" in words or "--router" in words else ["--base", str(root / "base")]
        if experts and not {"--experts", "--router"} & set(words):
            given += ["--experts", str(root / "experts")]
        assert MAIN([*given, *words]) == status
        out, err = capsys.readouterr()
        if status:
            assert err.startswith("error: ") and err.count("\n") == 1 and "Traceback" not in err and out == ""
            return err
        return out

    return asking


def expected(method, *prompts, **settings):
    made = shell.made(method)
    ids = [encode(made.base, prompt) for prompt in prompts]
    found = complete(made.base, made.adapted, made.arrays, ids, Settings(**{"max_new": 10} | settings))
    return [one.text for one in found]


@pytest.mark.parametrize("method", ["arrow", "arrow(k=2)", "uniform", "base"])
def test_a_prompt_is_answered_by_a_method(ask, method):
    assert ask(PROMPT, "--method", method, *NEW) == expected(method, PROMPT)[0] + "\n"


def test_arrow_and_the_bare_base_need_no_word(ask):
    assert ask(PROMPT, *NEW) == ask(PROMPT, "--method", "arrow", *NEW) != ask(PROMPT, *NEW, experts=False)
    assert ask(PROMPT, *NEW, experts=False) == expected("base", PROMPT)[0] + "\n"


def test_numbers_reach_the_settings(ask):
    words = (PROMPT, "--method", "uniform", *NEW, "--temperature", "1.3", "--top-p", "0.8", "--seed", "3")
    drawn = expected("uniform", PROMPT, temperature=1.3, top_p=0.8, seed=3)[0]
    assert ask(*words) == drawn + "\n" != ask(*words[:-1], "4")
    assert (
        ask(PROMPT, "--method", "uniform", "--max-new", "3")
        == expected("uniform", PROMPT, max_new=3)[0] + "\n"
    )


@pytest.mark.slow
def test_a_seq2seq_answers_too(ask, tmp_path):
    """Prompts of unequal length in one batch: what each alone is answered by prefill and steps, without buckets."""
    folder, prompts = (
        tiny_folder.seq2seq(tmp_path / "t5"),
        ("the ant sleeps", "the bird sings in the wood today"),
    )
    base = load(folder)
    own.expert(base, tmp_path / "experts" / "ann")
    words = (*prompts, "--base", str(folder), "--experts", str(tmp_path / "experts"), "--method", "uniform")
    found = [json.loads(line) for line in ask(*words, *NEW, "--json").splitlines()]
    pool, _ = read_pool(tmp_path / "experts", base.sites, base.shapes, base.layers, base.fingerprint)
    method = methods.load("uniform")
    adapted, end = method.adapt(method.Config(), base), base.tokenizer.eos_token_id
    arrays = method.arrays(method.Config(), base, pool, Fitted({"places": {}, "knobs": {}}, pool.names))
    for prompt, said in zip(prompts, found, strict=True):
        tokens = jnp.array(encode(base, prompt), jnp.int32)[None]
        batch = Batch(tokens, jnp.ones(tokens.shape, bool), jnp.ones(tokens.shape, bool))
        begin, go_on = partial(start, adapted, room=10), partial(step, adapted)
        wanted = jax.jit(partial(generate, begin, go_on, max_new=10, eos=(end,)))(arrays, batch)
        assert said["tokens"] == int(wanted.length[0])
        kept = np.asarray(wanted.tokens[0, : int(wanted.length[0])])
        assert said["answer"] == base.tokenizer.decode(kept, skip_special_tokens=True)


def test_stop_strings_end_an_answer(ask):
    whole = expected("uniform", PROMPT)[0]
    late, early = whole[6:8], whole[3:5]
    said = ask(PROMPT, "--method", "uniform", *NEW, "--stop", late, "--stop", early)
    assert said == whole[: min(whole.index(late), whole.index(early))] + "\n"


def test_bfloat16_is_computed_in(ask):
    exact, rough = (
        json.loads(ask(PROMPT, *NEW, "--json", "--dtype", kind)) for kind in ("float32", "bfloat16")
    )
    assert rough["tokens"] > 0 and exact["prompt"] == rough["prompt"]


def test_several_prompts_and_batches(ask):
    both = (PROMPT, "bees. so many")
    texts = expected("uniform", *both)
    said = f"[1] {both[0]}\n{texts[0]}\n[2] {both[1]}\n{texts[1]}\n"
    assert (
        ask(*both, "--method", "uniform", *NEW)
        == said
        == ask(*both, "--method", "uniform", *NEW, "--batch", "1")
    )


def test_files_and_standard_input(ask, tmp_path, monkeypatch):
    both = (PROMPT, "bees. so many")
    (tmp_path / "two.txt").write_text("\n".join(both) + "\n\n")
    (tmp_path / "two.jsonl").write_text("\n".join(json.dumps({"prompt": one}) for one in both))
    plain_words = ask(*both, "--method", "uniform", *NEW)
    for name in ("two.txt", "two.jsonl"):
        assert ask("--file", str(tmp_path / name), "--method", "uniform", *NEW) == plain_words
    monkeypatch.setattr(sys, "stdin", io.StringIO("\n".join(both)))
    assert ask("--file", "-", "--method", "uniform", *NEW) == plain_words
    monkeypatch.setattr(sys, "stdin", io.StringIO(PROMPT + "\n"))
    assert ask("--method", "uniform", *NEW) == expected("uniform", PROMPT)[0] + "\n"


def test_json_says_how_an_answer_ended(ask):
    whole = expected("uniform", PROMPT)[0]
    found = json.loads(ask(PROMPT, "--method", "uniform", *NEW, "--json"))
    assert found == {"prompt": PROMPT, "answer": whole, "tokens": 10, "ended": "length"}
    cut = json.loads(ask(PROMPT, "--method", "uniform", *NEW, "--json", "--stop", whole[3:5]))
    assert cut["ended"] == "stop" and cut["tokens"] < 10


def test_a_chat_goes_through_the_template(ask, tmp_path):
    said = ask("hi", "--chat", "--system", "be brief", "--method", "uniform", *NEW)
    made = shell.made("uniform")
    words = encode(made.base, "<system>be brief<user>hi<assistant>", special=False)
    answer = complete(made.base, made.adapted, made.arrays, [words], Settings(max_new=10))[0].text
    assert said == answer + "\n" != ask("hi", "--method", "uniform", *NEW)
    messages = [{"role": "system", "content": "be brief"}, {"role": "user", "content": "hi"}]
    (tmp_path / "talk.jsonl").write_text(json.dumps({"messages": messages}))
    assert ask("--file", str(tmp_path / "talk.jsonl"), "--method", "uniform", *NEW) == said


def test_an_answer_is_printed_as_it_grows(ask):
    assert ask(PROMPT, "--method", "uniform", *NEW, "--stream") == expected("uniform", PROMPT)[0] + "\n"


def test_which_expert_each_token_used(ask):
    found = json.loads(ask(PROMPT, "--method", "arrow(k=2)", *NEW, "--json", "--show-experts"))["experts"]
    assert len(found["tokens"]) == len(found["expert"]) == len(found["weight"]) == 10
    assert set(found["expert"]) <= set(shell.NAMES) == set(found["weights"])
    assert abs(sum(found["weights"].values()) - 1) < 1e-3
    table = ask(PROMPT, "--method", "arrow(k=2)", *NEW, "--show-experts")
    assert table.startswith(expected("arrow(k=2)", PROMPT)[0] + "\n")
    for name in set(found["expert"]):
        assert f"{found['expert'].count(name)} of 10" in table
    even = json.loads(ask(PROMPT, "--method", "uniform", *NEW, "--json", "--show-experts"))["experts"]
    assert set(even["weights"].values()) == {0.3333}
    bare = json.loads(ask(PROMPT, *NEW, "--json", "--show-experts", experts=False))["experts"]
    assert bare["expert"] == [None] * 10 and bare["weights"] == {}


def test_experts_may_be_named_one_by_one(ask, root):
    every = ask(PROMPT, "--method", "uniform", *NEW)
    one_by_one = ",".join(str(root / "experts" / name) for name in shell.NAMES)
    assert ask(PROMPT, "--method", "uniform", *NEW, "--experts", one_by_one) == every
    alone = ask(
        PROMPT,
        "--method",
        "uniform",
        *NEW,
        "--experts",
        str(root / "experts" / "ant"),
        "--json",
        "--show-experts",
    )
    assert set(json.loads(alone)["experts"]["weights"]) == {"ant"}
    assert ask(PROMPT, "--method", "uniform", *NEW, "--capacity", "9") == every


def test_one_more_expert_compiles_nothing(ask, root, tmp_path):
    shutil.copytree(root / "experts", tmp_path / "experts")
    words = (PROMPT, *NEW, "--experts", str(tmp_path / "experts"))
    for method in ("arrow(k=2)", "uniform"):
        shutil.rmtree(tmp_path / "experts" / "dog", ignore_errors=True)
        three = ask(*words, "--method", method)
        own.expert(load(root / "base"), tmp_path / "experts" / "dog", rank=4)
        with world.compiles() as compiled:
            four = ask(*words, "--method", method)
        assert compiled == [] and three != four


def routers(root, tmp_path):
    """A run with a router of each sort, fitted on the three experts with five slots."""
    base = load(root / "base")
    pool, _ = read_pool(root / "experts", base.sites, base.shapes, base.layers, base.fingerprint, capacity=5)
    config = plain(Config(base=BaseConfig(source=str(root / "base")), pool=str(root / "experts")))
    searched = {"weights": jnp.asarray([0.5, -1.0]), "experts": jnp.asarray([1, 0])}
    with open_run(tmp_path / "run", config) as opened:
        for name, router in {
            "uniform": {"places": {}, "knobs": {}},
            "lorahub@new": {"places": {}, "knobs": {}, "model": searched},
            "own_expert": {"places": {}, "knobs": {}},
        }.items():
            method = methods.load(name.partition("@")[0])
            fitted = Fitted(router, pool.names)
            router_file.save(opened.router(name), method, method.Config(), base, pool, fitted)
    return tmp_path / "run" / "routers"


def test_a_fitted_router_answers_with_its_own_base_and_experts(ask, root, tmp_path):
    folder = routers(root, tmp_path)
    assert ask(PROMPT, *NEW, "--router", str(folder / "uniform")) == expected("uniform", PROMPT)[0] + "\n"
    words = ("--router", str(folder / "lorahub@new"), "--json", "--show-experts", PROMPT, *NEW)
    found = json.loads(ask(*words))["experts"]["weights"]
    np.testing.assert_allclose([found["ant"], found["bee"], found["cat"]], [-1.0, 0.5, 0.0], atol=1e-4)
    shutil.move(tmp_path / "run" / "config.json", tmp_path / "away.json")
    assert "which base? Say --base FOLDER" in ask(*words, status=2)
    given = ("--base", str(root / "base"), "--experts", str(root / "experts"))
    assert json.loads(ask(*words, *given))["experts"]["weights"] == found


@pytest.mark.slow
@pytest.mark.parametrize(
    "mesh", [("--mesh.expert", "4"), ("--mesh.data", "1", "--mesh.expert", "2", "--mesh.model", "4")]
)
def test_over_a_mesh_the_answers_are_the_same(ask, mesh):
    words = (PROMPT, "the bee ", "--method", "arrow(k=2)", *NEW)
    assert ask(*words, *mesh) == ask(*words)
    assert "mesh.expert 3 * mesh.model 1 does not divide the 8 devices" in ask(
        *words, "--mesh.expert", "3", status=2
    )


def test_experts_that_stay_on_disk_answer_the_same(ask, root, tmp_path):
    router = (
        "--router",
        str(routers(root, tmp_path) / "lorahub@new"),
        "--json",
        "--show-experts",
        PROMPT,
        *NEW,
    )
    assert ask(*router, "--pool-slots", "2") == ask(*router)
    said = ask(PROMPT, "--method", "arrow", "--pool-slots", "2", status=2)
    assert "arrow weighs all experts of the pool, and pool_slots leaves them on disk" in said
    assert "--pool-slots is -1: expected 1 or more" in ask(PROMPT, "--pool-slots", "-1", status=2)
    assert "one batch uses 2 experts, and pool_slots has room for 1" in ask(
        *router, "--pool-slots", "1", status=2
    )


def test_routers_that_cannot_answer_say_so(ask, root, tmp_path):
    folder = routers(root, tmp_path)
    said = ask(PROMPT, "--router", str(folder / "uniform"), "--method", "arrow", status=2)
    assert "says which method: leave --method out" in said
    assert "not a whole router" in ask(PROMPT, "--router", str(folder), status=2)
    assert "is told what is right" in ask(PROMPT, "--router", str(folder / "own_expert"), status=2)
    shutil.copytree(root / "experts", tmp_path / "two")
    shutil.rmtree(tmp_path / "two" / "ant")
    words = ("--router", str(folder / "lorahub@new"), "--experts", str(tmp_path / "two"))
    assert "fitted with expert 'ant', which the pool lacks" in ask(PROMPT, *words, status=2)


def test_phatgoose_answers_where_the_experts_hold_gates(ask, root, tmp_path):
    assert "ant has no gate: its contributor must provide it" in ask(
        PROMPT, "--method", "phatgoose", status=2
    )
    shutil.copytree(root / "experts", tmp_path / "experts")
    base = load(root / "base")
    pool, _ = read_pool(tmp_path / "experts", base.sites, base.shapes, base.layers, base.fingerprint)
    rng, sites = np.random.default_rng(0), pool.bank.sites.items()
    gate = {
        name: {"gate": {path: np.float32(rng.normal(size=(1, stack.a.shape[3]))) for path, stack in sites}}
        for name in pool.names
    }  # fmt: skip
    pool.with_extras(gate).save_extras(tmp_path / "experts")
    words = ("--method", "phatgoose", "--experts", str(tmp_path / "experts"), "--json", "--show-experts")
    assert len(json.loads(ask(PROMPT, *NEW, *words))["experts"]["expert"]) == 10


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("",), "prompt 1 is empty"),
        ((PROMPT, "  "), "prompt 2 is empty"),
        ((PROMPT, "--system", "x"), "--system is a message of a chat: say --chat too"),
        ((PROMPT, "--file", "x"), "choose one"),
        (("--file", "absent.txt"), "absent.txt: cannot be read as text"),
        ((PROMPT, "--method", "arow"), "did you mean 'arrow'"),
        ((PROMPT, "--method", "arrow(k=two)"), "k is 'two', expected int"),
        ((PROMPT, "--method", "token_gate"), "fit it in a run with train.py, then say --router RUN/routers/token_gate"),
        ((PROMPT, "--method", "loraretriever"), "compares sentence vectors: say --embedder"),
        ((PROMPT, "--method", "own_expert"), "is told what is right"),
        ((PROMPT, "--method", "uniform", "--experts", ","), "routes experts: say --experts FOLDER"),
        ((PROMPT, "--experts", "absent/ant"), "neither a folder here nor"),
        ((PROMPT, "--base", "absent/base"), "neither a folder here nor"),
        ((PROMPT, "--base", "/absent/base"), "there is no folder /absent/base"),
        ((PROMPT, "--capacity", "2"), "--capacity 2 is too small for 3 experts: raise it"),
        ((PROMPT, "--dtype", "float8"), "Expected one of ('float32', 'bfloat16')"),
        ((PROMPT, "--max-new", "0"), "--max-new is 0: expected 1 or more"),
        ((PROMPT * 120, "--max-new", "10"), "would pass the 512 positions of the base"),
        ((PROMPT, "--temprature", "1"), "did you mean --temperature?"),
        ((PROMPT, "--top-p", "2"), "--top-p is 2.0: expected above 0 and at most 1"),
        ((PROMPT, "--stop", ""), "--stop is ('',)"),
    ],
)  # fmt: skip
def test_what_is_wrong_is_said_in_one_sentence(ask, words, said):
    assert said in ask(*words, status=2)


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("{", r"lines.jsonl:1: not valid JSON"),
        ("[]", "lines.jsonl:1: expected {"),
        ('{"prompt": 3}', "lines.jsonl:1: expected {"),
        ('{"messages": [{"role": "user"}]}', "lines.jsonl:1: expected {"),
        ('{"prompt": ""}', "lines.jsonl:1 is empty"),
        ('{"messages": [{"role": "tool", "content": "x"}]}', "the chat template refuses these messages (no tools"),
        ("", "no prompt in it"),
    ],
)  # fmt: skip
def test_a_wrong_line_is_named(ask, tmp_path, line, said):
    (tmp_path / "lines.jsonl").write_text(line)
    assert said in ask("--file", str(tmp_path / "lines.jsonl"), status=2)


def test_a_terminal_is_asked_for_nothing(ask, monkeypatch):
    class Terminal(io.StringIO):
        def isatty(self):
            return True

    monkeypatch.setattr(sys, "stdin", Terminal())
    assert "which prompt?" in ask(status=2)


def test_bases_that_cannot_answer_say_so(ask, tmp_path):
    encoder = str(tiny_folder.encoder(tmp_path / "encoder"))
    assert "is an encoder, which writes no text" in ask("x", "--base", encoder, experts=False, status=2)
    mute = tiny_folder.speaker(tmp_path / "mute", chat=None)
    assert "no chat template: leave --chat out" in ask(
        "x", "--base", str(mute), "--chat", experts=False, status=2
    )
    for name in ("tokenizer.json", "tokenizer_config.json"):
        (mute / name).unlink()
    assert "no tokenizer can be read" in ask("x", "--base", str(mute), experts=False, status=2)
    assert MAIN(["x"]) == 2


def test_experts_of_another_base_are_refused_unless_asked_for(ask, root, tmp_path, capsys):
    other = tiny_folder.speaker(tmp_path / "other", seed=1)
    words = ("--base", str(other), "--experts", str(root / "experts"), PROMPT, *NEW)
    assert "use its own base, or --allow-base-mismatch" in ask(*words, status=2)
    assert MAIN([*words, "--allow-base-mismatch"]) == 0
    assert capsys.readouterr().err.count("warning: ") == 3


def test_every_flag_is_tried_here():
    text = Path(__file__).read_text()
    assert (
        not [flag for flag in flags(Options) if flag not in text and flag != "--embedder"]
        and "--embedder" in text
    )


def test_from_a_shell_of_its_own(root):
    words = [sys.executable, str(ROOT / "generate.py"), "--base", str(root / "base"), "--max-new", "3"]
    done = subprocess.run([*words, PROMPT], capture_output=True, text=True, timeout=300, cwd=ROOT)
    assert (done.returncode, done.stderr) == (0, "") and done.stdout == expected("base", PROMPT, max_new=3)[
        0
    ] + "\n"
