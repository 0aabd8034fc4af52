"""Blocks as they are in use; the other tests make them small."""

import pytest

from moejax.aggregation import rule


@pytest.fixture(autouse=True)
def _blocks_in_use(monkeypatch):
    monkeypatch.setattr(rule, "LARGEST", 32)
