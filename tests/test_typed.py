"""Types are checked: of the package's functions, on their first calls, and now and then after them."""

import pytest
from jaxtyping import TypeCheckError
from typed import FIRST, THEN, checked

from moejax.aggregation import rule


def test_first_calls_and_some_later_ones_are_checked():
    @checked
    def double(x: int) -> int:
        return 2 * x

    with pytest.raises(TypeCheckError):
        double("first")  # pyright: ignore
    assert [double(1) for _ in range(FIRST)] == [2] * FIRST
    with pytest.raises(TypeCheckError):
        [double("one of these") for _ in range(THEN)]  # pyright: ignore


def test_functions_of_the_package_are_checked():
    assert hasattr(rule.choose, "__wrapped__")
    assert rule.choose.__code__.co_name == "call" and rule.choose.__name__ == "choose"
