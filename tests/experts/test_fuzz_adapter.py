"""Adapters of strangers, damaged at random: an error or the same expert, never a crash, a hang or much memory."""

import fuzz
import pytest

from moejax.experts.report import line


def check(seeds):
    said = fuzz.run("experts.fuzz_adapter", seeds)
    assert said.keys() == {fuzz.REFUSED, "the same", "unverified"}
    assert said[fuzz.REFUSED] > len(seeds) / 3, said


def test_a_few_hundred():
    check(range(300))


@pytest.mark.slow
def test_a_few_thousand():
    check(range(300, 4300))


def test_an_expert_without_a_hash_is_told_with_it(tiny, tmp_path):
    from moejax.experts.files import read, write
    from moejax.experts.folder import INFO, read_json, write_json

    write(tmp_path / "mine", tiny.expert("mine"), tiny.sites)
    expert, report = read(tmp_path / "mine", tiny.sites, tiny.shapes, None)
    digest = expert.info["hash"]
    assert report.verified and "sha256" not in line(report)
    write_json(tmp_path / "mine" / INFO, read_json(tmp_path / "mine" / INFO) | {"hash": None})
    expert, report = read(tmp_path / "mine", tiny.sites, tiny.shapes, None)
    assert expert.info["hash"] == digest and f"{digest[:19]} unverified" in line(report)
