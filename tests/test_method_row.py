"""Rows of the table in one word."""

import pytest

from moejax.method_row import parse_row, short
from moejax.methods import arrow, best_single, multitask, phatgoose, task_arithmetic
from moejax.types import UserError


@pytest.mark.parametrize(
    ("text", "name", "config"),
    [
        ("arrow", "arrow", arrow.Config()),
        ("arrow()", "arrow", arrow.Config()),
        ("arrow(factor)", "arrow", arrow.Config("factor")),
        ("arrow(output, k=2, temperature=3)", "arrow", arrow.Config("output", 2, 3.0)),
        ("arrow(aggregation='factor')", "arrow", arrow.Config("factor")),
        ("arrow(aggregation=factor)", "arrow", arrow.Config("factor")),
        ("phatgoose(rate=.5, steps=3)", "phatgoose", phatgoose.Config(rate=0.5, steps=3)),
        ("best_single(test)", "best_single", best_single.Config("test")),
        ("task_arithmetic(grid=(.5, 1))", "task_arithmetic", task_arithmetic.Config(grid=(0.5, 1.0))),
        ("multitask(steps=3)", "multitask", multitask.Config(steps=3)),
    ],
)
def test_a_row_is_a_method_with_its_options(text, name, config):
    row = parse_row(text)
    assert row == (text, name, config)
    assert hash(row.config) == hash(config)


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("arow", "did you mean 'arrow'"),
        ("routoo", "is in the survey (section 3.14) but not built here"),
        ("arrow(", "is not of the form"),
        ("arrow.factor", "is not of the form"),
        ("arrow(factors)", "no choice 'factors', did you mean factor?"),
        ("arrow(zzz)", "the words here are output, factor"),
        ("base(zzz)", "the words here are none"),
        ("arrow(ks=2)", "no option 'ks', did you mean k?"),
        ("base(x=2)", "no option 'x', there are none"),
        ("arrow(factor(2))", "factor(2) needs the name of an option"),
        ("arrow(2)", "2 needs the name of an option"),
        ("arrow(**{})", "no option '**'"),
        ("arrow(k=2.5)", "k is 2.5, expected int"),
        ("arrow(k=True)", "k is True, expected int"),
        ("arrow(k=None)", "k is None, expected int"),
        ("arrow(temperature='hot')", "temperature is 'hot', expected float"),
        ("arrow(temperature=True)", "temperature is True, expected float"),
        ("arrow(aggregation=mean)", "aggregation is 'mean', expected one of output, factor"),
        ("arrow(factor, aggregation='output')", "aggregation is given twice"),
        ("arrow(k=2 + 2)", "2 + 2 is not a plain value"),
        ("task_arithmetic(grid=(1, 'a'))", "grid is (1, 'a'), expected tuple[float, ...]"),
        ("task_arithmetic(grid=1)", "grid is 1, expected tuple"),
    ],
)
def test_a_wrong_row_is_refused_in_one_sentence(text, sentence):
    with pytest.raises(UserError) as refusal:
        parse_row(text)
    assert sentence in str(refusal.value)
    assert text in str(refusal.value) or repr(text.partition("(")[0]) in str(refusal.value)


def test_a_row_runs_no_code():
    with pytest.raises(UserError, match="is not a plain value"):
        parse_row("arrow(k=__import__('os').getpid())")


@pytest.mark.parametrize(
    ("text", "others", "name"),
    [
        ("arrow(factor, k=2)", (), "arrow(factor)"),
        ("phatgoose(steps=3)", ("arrow(factor, k=2)",), "phatgoose"),
        ("arrow(factor, k=2)", ("arrow(factor)",), "arrow(factor, k=2)"),
        ("arrow(k=2)", ("arrow(factor, k=2)",), "arrow"),
        ("base", ("uniform",), "base"),
    ],
)
def test_names_are_short_where_no_other_row_has_them(text, others, name):
    assert short(text, (text, *others)) == name
