"""What methods were allowed to see, in the taxonomy's sentences."""

from report_case import Page, results, row

from moejax.report.sight import sight
from moejax.taxonomy import EXTRAS, GRANTS


def test_grants_and_extras_are_sentences():
    page = Page(sight(results()))
    assert GRANTS["own"] in page.text and EXTRAS["gate"] in page.text and GRANTS["test_task"] in page.text
    assert page.text.count("no data") == 2  # uniform and arrow
    assert "k=2" in page.text and "k chosen on 6 labelled rows" in page.text
    assert "not applicable: ann has no gate" in page.text


def test_what_the_results_do_not_say_is_said():
    old = row("arrow", needs=["from_another_version"])
    del old["extras"], old["options"]
    page = Page(sight({"rows": [old]}))
    assert "not recorded" in page.text and "from_another_version" in page.text and "none" in page.text
    assert "name no method" in sight({})
