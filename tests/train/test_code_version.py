"""Which code made a result: the commit, and whether the sources differ from it."""

import subprocess

from moejax.train.code_version import code_version, commit


def git(root, *words):
    names = ["-c", "user.name=a", "-c", "user.email=a@b"]
    return subprocess.run(
        ["git", "-C", str(root), *names, *words], check=True, capture_output=True, text=True
    ).stdout.strip()


def test_the_commit_of_the_sources_and_whether_they_differ(tmp_path):
    (tmp_path / "moejax").mkdir()
    (tmp_path / "moejax" / "__init__.py").write_text("")
    assert commit(tmp_path) is None
    git(tmp_path, "init", "-q")
    assert commit.__wrapped__(tmp_path) is None  # a repository that does not hold them
    git(tmp_path, "add", "moejax")
    git(tmp_path, "commit", "-qm", "one")
    head = git(tmp_path, "rev-parse", "HEAD")
    assert commit.__wrapped__(tmp_path) == head
    (tmp_path / "moejax" / "__init__.py").write_text("x = 1\n")
    assert commit.__wrapped__(tmp_path) == f"{head}+changes"


def test_the_version_is_of_the_content():
    assert len(code_version()) == 12 and code_version() == code_version()
