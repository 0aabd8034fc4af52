"""The table of methods: every line leads to a method of that name, wrong names get the nearest one."""

import pytest

from moejax import methods
from moejax.types import UserError


@pytest.mark.parametrize("name", methods.TABLE)
def test_every_name_leads_to_its_method(name: str):
    assert methods.load(name).card.key == name


def test_load_imports_the_module_on_demand(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setitem(methods.TABLE, "one", "tests_no_such_module")
    with pytest.raises(ModuleNotFoundError, match="tests_no_such_module"):
        methods.load("one")


def test_a_wrong_name_gets_the_nearest_and_the_list(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setitem(methods.TABLE, "phatgoose", "x")
    with pytest.raises(
        UserError, match="no method 'phatgose', did you mean 'phatgoose'.*methods here are: .*phatgoose"
    ):
        methods.load("phatgose")


def test_a_method_of_the_survey_that_is_not_built_says_so(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.delitem(methods.TABLE, "zooter", raising=False)
    with pytest.raises(UserError, match=r"'zooter' is in the survey \(section 3.10\) but not built here"):
        methods.load("zooter")
