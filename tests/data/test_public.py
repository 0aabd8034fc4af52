"""Public tasks: each raw form parsed from a stand-in, what arrives checked, a lack of network said."""

import gzip
import http.server
import json
import re
import socket
import threading
from collections import Counter

import pytest

from moejax.data import public
from moejax.data.cuts import Raw, distinct, finished, fold, ordered, plain, resplit
from moejax.data.folder import read_folder
from moejax.data.public import PUBLIC, convert, digest, download, recorded
from moejax.data.tasks import SPLITS
from moejax.types import UserError


def converted(name: str, files: dict[str, str | bytes]):
    raw = {path: text.encode() if isinstance(text, str) else text for path, text in files.items()}
    return convert(name, raw.__getitem__)


def said(task, split: str) -> set[tuple[str, str]]:
    return {(row.input, row.target) for row in task.rows[split]}


def sizes(task) -> list[int]:
    return [len(task.rows[split]) for split in SPLITS]


def many(form: str, count: int) -> str:
    """Lines that differ: {n} is a number in letters, so that no two fold into one."""
    return "".join(form.format(n="x" * (n + 1)) + "\n" for n in range(count))


def test_the_table_is_whole():
    assert len(PUBLIC) == 67 and sum(one.kind == "classification" for one in PUBLIC.values()) == 21
    for name, one in PUBLIC.items():
        assert re.fullmatch(r"[0-9a-f]{64}", recorded(name))
        assert re.fullmatch(r"[0-9a-f]{40}", one.source.commit)
        assert one.source.licence and one.instruction and one.form.paths
        assert not any(path.startswith("/") or ".." in path for path in one.form.paths)
        if one.labels:
            assert len(set(one.labels.values())) == len(one.labels)


def test_numbered_lines():
    stem = "data/stsa.binary."
    task = converted("sst2", {
        stem + "train": "1 a  fine film\n0 a dull film\n\nno label\n",
        stem + "dev": "0 awful\n", stem + "test": "1 lovely caf\xe9\n0 A dull film!\n".encode("latin-1"),
    })  # fmt: skip
    assert said(task, "train") == {("a fine film", "positive")}  # the dull film is in the test already
    assert said(task, "test") == {("lovely café", "positive"), ("A dull film!", "negative")}
    assert said(task, "validation") == {("awful", "negative")}
    assert task.label_text == ("a terrible, bad movie", "a great, enjoyable movie")


def test_reviews_with_header_and_line_breaks():
    rows = 'Sentiment\tText\nPositive\t"so<br />good"\nNegative\tbad<br>{}\n'
    files = {f"sentiment/orig/{name}.tsv": rows.format(name) for name in ("train", "dev", "test")}
    task = converted("cad_imdb", files)
    assert said(task, "test") == {("so good", "positive"), ("bad test", "negative")}
    assert said(task, "train") == {("bad train", "negative")}


def test_a_file_for_each_label():
    task = converted(
        "mpqa", {"data/raw/mpqa.neg": many("bad {n}", 10), "data/raw/mpqa.pos": many("good {n}", 10)}
    )
    assert sizes(task) == [14, 3, 3]
    assert {(t.split()[0], label) for s in SPLITS for t, label in said(task, s)} == {
        ("bad", "negative"), ("good", "positive"),
    }  # fmt: skip
    zipped = {
        "dataset/clickbait_data.gz": gzip.compress(many("you will not believe {n}", 10).encode()),
        "dataset/non_clickbait_data.gz": gzip.compress(many("parliament votes {n}", 10).encode()),
    }
    assert Counter(r.target for s in SPLITS for r in converted("clickbait", zipped).rows[s]) == {
        "clickbait": 10, "news": 10,
    }  # fmt: skip


def test_tweets_beside_their_labels():
    files = {}
    for name in ("train", "val", "test"):
        files[f"datasets/irony/{name}_text.txt"] = f"yeah right {name} &amp; so\nhello {name}\n"
        files[f"datasets/irony/{name}_labels.txt"] = "1\n0\n"
    task = converted("tweet_irony", files)
    assert said(task, "validation") == {("yeah right val & so", "ironic"), ("hello val", "not ironic")}
    assert sizes(task) == [2, 2, 2]


def test_tweets_about_several_targets():
    files = {}
    for path in PUBLIC["tweet_stance"].form.paths:
        part, name = path.split("/")[2:]
        files[path] = "2\n" if "labels" in name else f"down with {part} {name[:3]}\n"
    task = converted("tweet_stance", files)
    assert sizes(task) == [5, 5, 5]
    assert ("Target: feminist movement. Tweet: down with feminist tes", "favor") in said(task, "test")


def test_tweets_cut_from_the_test_file():
    files = {
        "datasets/sentiment/test_text.txt": many("tweet {n}", 20),
        "datasets/sentiment/test_labels.txt": "2\n" * 20,
        "datasets/sentiment/val_text.txt": "other\n", "datasets/sentiment/val_labels.txt": "0\n",
    }  # fmt: skip
    task = converted("tweet_sentiment", files)
    assert sizes(task) == [14, 1, 3] and said(task, "validation") == {("other", "negative")}


def test_questions_of_coarse_and_fine_kind():
    files = {"data/raw/TREC.train": many("NUM:date When {n} ?", 503), "data/raw/TREC.test": "HUM:ind Who ?\n"}
    task = converted("trec", files)
    assert sizes(task) == [3, 500, 1] and said(task, "test") == {("Who ?", "human")}
    assert all(row.target == "number" and row.input.startswith("When x") for row in task.rows["train"])


def test_tab_lines():
    task = converted("sms_spam", {"data/SMSSpamCollection": many("ham\thi {n}\tyou", 10) + "no tab\n"})
    assert sizes(task) == [7, 1, 1] and all(row.target == "ham" for row in task.rows["train"])
    assert all(re.fullmatch("hi x+ you", row.input) for row in task.rows["train"])


def test_news_without_header():
    text = many('"3","Shares {n} #36;5","Oil\\rises &lt;b&gt; quot;fast quot;"', 10)
    task = converted("ag_news", {"data/ag_news_csv/test.csv": text})
    assert sizes(task) == [7, 1, 1]
    assert re.fullmatch('Shares x+ \\$5 Oil rises <b> "fast "', task.rows["test"][0].input)
    assert task.rows["test"][0].target == "business"


def test_intents_with_header():
    files = {
        "banking_data/train.csv": "text,category\n" + many('"card {n}, please",lost_or_stolen_card?', 502),
        "banking_data/test.csv": "text,category\nwhy was I charged,Refund_not_showing_up\n",
    }
    task = converted("banking77", files)
    assert sizes(task) == [2, 500, 1]
    assert task.choices == task.label_text == ("lost or stolen card", "refund not showing up")


def test_many_small_files_of_scenarios():
    paths = PUBLIC["hwu_scenario"].form.paths
    assert len(paths) == 640
    head = "answerid;scenario;intent;answer_from_anno\n"
    files = dict.fromkeys(paths, head)
    files[sorted(paths)[0]] = head + many("1;iot;x;lights {n}", 5) + "1;lists;x;add milk\n" + "1;qa;x;\n"
    files[sorted(paths)[-1]] = head + "1;weather;x;add  milk\n" + many("1;news;x;headline {n}", 5)
    task = converted("hwu_scenario", files)
    every = {row.input: row.target for split in SPLITS for row in task.rows[split]}
    assert sizes(task) == [7, 1, 1] and len(every) == 9
    assert (
        set(task.choices) <= {"smart home", "news", "weather"}
        and every.get("add milk", "weather") == "weather"
    )


def test_pairs_with_quotes():
    row = 'sentence1\tsentence2\tgold_label\nA "dog\tAn animal {}\tentailment\n'
    task = converted(
        "cad_nli", {f"NLI/all_combined/{n}.tsv": row.format(n) for n in ("train", "dev", "test")}
    )
    assert said(task, "test") == {('Premise: A "dog Hypothesis: An animal test', "entailment")}


def test_splits_in_json():
    whole = {
        "train": [["book a flight", "book_flight"]],
        "val": [["hi", "greeting"]],
        "test": [["yo", "greeting"]],
    }
    task = converted("clinc150", {"data/data_full.json": json.dumps(whole | {"oos_val": []})})
    assert task.choices == ("book flight", "greeting") and said(task, "train") == {
        ("book a flight", "book flight")
    }


def induced(name: str, outputs: list, official: list) -> dict[str, str]:
    made = [{"input": "word " + "x" * (i + 1), "output": output} for i, output in enumerate(outputs)]
    files = {"induce": made, "execute": official}
    return {
        f"data/raw/{part}/{name}.json": json.dumps({"examples": dict(enumerate(rows))})
        for part, rows in files.items()
    }


def test_examples_to_induce_from():
    official = [{"input": "word x", "output": ["b", "c"]}]
    task = converted("ii_antonyms", induced("antonyms", [["a", "z"]] * 31, official))
    assert sizes(task) == [24, 3, 4] and ("word x", "b") in said(task, "test")
    assert task.kind == "generation" and task.choices == ()
    assert {row.target for row in task.rows["train"]} == {"a"}
    wic = converted("wic", induced("word_in_context", ["same"] * 10 + ["not_same"] * 10, []))
    assert set(wic.choices) == {"same", "not the same"}
    assert Counter(row.target for s in SPLITS for row in wic.rows[s]) == {"same": 10, "not the same": 10}
    sts = converted("sts_level", induced("sentence_similarity", ["5 - perfectly", "0 - definitely not"], []))
    assert {row.target for s in SPLITS for row in sts.rows[s]} == {"perfectly", "definitely not"}
    german = converted("ii_translation_en_de", induced("translation_en-de", [["Hund"]] * 3, []))
    assert german.instruction == "Translate the word into German."


def test_questions_with_steps():
    rows = many('{{"question": "q{n}", "answer": "1<<1+0=1>>\\n#### 1"}}', 501)
    task = converted("gsm8k", {
        "grade_school_math/data/train.jsonl": rows,
        "grade_school_math/data/test.jsonl": '{"question": "two\\nlines", "answer": "#### 2"}\n',
    })  # fmt: skip
    assert sizes(task) == [1, 500, 1] and said(task, "test") == {("two\nlines", "#### 2")}
    assert task.rows["train"][0].target == "1\n#### 1"


@pytest.mark.parametrize(
    ("text", "target", "choices"),
    [
        ("Which?\nOptions:\n(A) one\n(B) two", "(B)", ("(A)", "(B)")),
        ("Which?\nOptions:\n- valid one\n- other", "other", ("valid one", "other")),
        ("Is it so?", "No", ("Yes", "No")),
        ("Is it so?", "no", ("yes", "no")),
        ("not True and False", "False", ("True", "False")),
        ("Hence?", "valid", ("valid", "invalid")),
        ("Sort: b a", "a b", None),
        ("Which?\nOptions:\n(A) one\n(B) two", "(Z)", None),
    ],
)
def test_options_found_in_the_text(text, target, choices):
    raw = json.dumps({"canary": "x", "examples": [{"input": text, "target": target}]})
    task = converted("bbh_navigate", {"bbh/navigate.json": raw})
    (row,) = task.rows["validation"]
    assert (row.target, row.choices) == (target, choices) and sizes(task) == [0, 1, 0]


def test_texts_that_differ_in_signs_alone_stay_where_signs_matter():
    rows = [{"input": f"[ {sign} ] is", "target": "]"} for sign in "<({"] + [
        {"input": "a b", "target": "]"}
    ] * 2
    raw = json.dumps({"examples": rows})
    assert sizes(converted("bbh_dyck_languages", {"bbh/dyck_languages.json": raw})) == [0, 4, 0]


def test_every_form_has_a_stand_in_here():
    """The form's functions that the table uses are those that the tests above parse."""
    forms = {one.form.parse.__qualname__.split(".")[0] for one in PUBLIC.values()}
    assert forms == {
        "by_split", "coarse_and_fine", "examples_json", "file_per_label", "intents_csv", "news_csv",
        "options_json",
        "questions_jsonl", "scenarios_csv", "splits_json", "tab_lines", "tweeteval", "tweeteval_resplit",
    }  # fmt: skip


def test_what_does_not_have_the_form_is_said():
    with pytest.raises(UserError, match="ag_news: the raw files do not have the form expected"):
        converted("ag_news", {"data/ag_news_csv/test.csv": "only,two\n"})
    with pytest.raises(UserError, match="clinc150: the raw files do not have the form"):
        converted("clinc150", {"data/data_full.json": "{"})
    with pytest.raises(UserError, match="clickbait: the raw files do not have the form"):
        converted("clickbait", dict.fromkeys(PUBLIC["clickbait"].form.paths, b"no gzip"))


@pytest.fixture
def source(monkeypatch):
    """A server on this machine in the place of the sources; {path: bytes} is what it serves."""
    served: dict[str, bytes] = {}

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self):
            self.send_response(200 if self.path in served else 404)
            self.end_headers()
            self.wfile.write(served.get(self.path, b""))

        def log_message(self, *args):
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        monkeypatch.setattr(public, "HOST", f"http://127.0.0.1:{server.server_address[1]}")
        yield served
        server.shutdown()
        thread.join()


def served_sms(source, monkeypatch, text: str) -> None:
    commit = PUBLIC["sms_spam"].source.commit
    source[f"/mahdithedev/Naive-Bayes-model/{commit}/data/SMSSpamCollection"] = text.encode()
    monkeypatch.setattr(public, "recorded", lambda name: digest({"x": many("ham\thi {n}", 10).encode()}))


def test_download_fetches_checks_and_adds(source, monkeypatch, tmp_path, review):
    served_sms(source, monkeypatch, many("ham\thi {n}", 10))
    from moejax.data.folder import write_folder

    write_folder([review], tmp_path)
    (task,) = download(["sms_spam"], tmp_path)
    assert read_folder(tmp_path) == (review, task)
    noted = json.loads((tmp_path / "tasks.json").read_text())["sms_spam"]
    assert noted["source_commit"] == PUBLIC["sms_spam"].source.commit and noted["licence"]


def test_a_changed_file_is_refused_and_nothing_written(source, monkeypatch, tmp_path):
    served_sms(source, monkeypatch, many("spam\thi {n}", 10))
    with pytest.raises(
        UserError, match="sms_spam: the raw files of mahdithedev/Naive-Bayes-model at 6bcd75f1e8fa"
    ):
        download(["sms_spam"], tmp_path / "new")
    assert not (tmp_path / "new").exists()


def test_no_network_and_no_such_file(source, monkeypatch, tmp_path):
    with pytest.raises(UserError, match=r"cannot fetch .*SMSSpamCollection \(.*404.*by --data-dir"):
        download(["sms_spam"], tmp_path)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        monkeypatch.setattr(public, "HOST", f"http://127.0.0.1:{free.getsockname()[1]}")
    with pytest.raises(UserError, match="cannot fetch .*without a network"):
        download(["sms_spam"], tmp_path)


def test_an_unknown_public_task(tmp_path):
    with pytest.raises(UserError, match="the table of public tasks has no task 'sst3'; did you mean sst2?"):
        download(["sst3"], tmp_path)


def test_cuts():
    rows = [Raw(f"text {'x' * (n + 1)}", "a") for n in range(20)]
    cut = resplit("t", rows)
    assert [len(cut[split]) for split in SPLITS] == [14, 3, 3]
    assert cut == resplit("t", rows[::-1]) != resplit("u", rows)
    assert sorted(row for split in SPLITS for row in cut[split]) == sorted(rows)
    assert ordered("t", rows) == ordered("t", rows[::-1]) != rows
    assert distinct([Raw("A b!", "1"), Raw("a  B", "2"), Raw("...", ""), Raw(" ", "1")]) == [Raw("A b!", "1")]
    assert fold("It's 5!") == "it s 5" and fold("[ ( ] a") == "[ ( ] a"
    assert plain(" a\u200b\n e\u0301 ") == "a é"
    big = finished("t", {"train": [Raw(f"w{'x' * n}", "a") for n in range(2100)], "test": [Raw("wx", "b")]})
    assert len(big["train"]) == 2000 and big["test"] == [Raw("wx", "b")] and big["validation"] == []
    assert "wx" not in {row.input for row in big["train"]}
