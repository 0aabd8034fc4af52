"""Other measures of decoders: shares and perplexities, one table a split, nothing for choices by similarity."""

from report_case import Page, results, row

from moejax.report.measures import measures

CELL = {"exact_match": 0.5, "rouge_l": 0.625, "perplexity": 12.345, "byte_perplexity": 1234.5, "nats": 2.5}


def test_each_split_has_a_table_of_what_was_measured():
    found = results() | {"rows": [row("one", held_in={"": CELL}, held_out={"": CELL | {"accuracy": 0.25}})]}
    said = Page(measures(found)).text
    for word in (
        "held-in",
        "held-out",
        "ROUGE-L",
        "perplexity by byte",
        ".625",
        "12.35",
        "1,234",
        ".250",
        "–",
    ):
        assert (word in said) == (word != "–")
    assert "accuracy, by character" not in said


def test_a_measure_that_a_method_lacks_is_a_dash_and_huge_numbers_are_short():
    rows = [row("one", held_in={"": CELL}), row("two", held_in={"": {"perplexity": 3e12, "accuracy": 1.0}})]
    said = Page(measures(results() | {"rows": rows})).text
    assert "–" in said and "3e+12" in said and "1.00" in said


def test_there_is_none_where_no_likelihood_was_measured():
    assert measures(results()) is None
