"""Markup: what is escaped, what is left out."""

from moejax.report.html import Html, box, breakable, join, missing, more, shortened, tag, text

SCRIPT = "<script>alert(1)</script>"


def test_a_string_is_escaped_wherever_it_stands():
    assert tag("p", SCRIPT) == "<p>&lt;script&gt;alert(1)&lt;/script&gt;</p>"
    assert tag("p", title='"><b>') == '<p title="&quot;&gt;&lt;b&gt;"></p>'
    assert tag("p", title=Html('" onclick="x')) != '<p title="" onclick="x"></p>'
    assert join(SCRIPT, tag("b", "&")) == "&lt;script&gt;alert(1)&lt;/script&gt;<b>&amp;</b>"
    assert SCRIPT not in missing(SCRIPT) + more(SCRIPT, SCRIPT) + box(SCRIPT)


def test_control_bidi_and_lone_surrogate_codes_are_spelled_out():
    assert text("a\x1b[31mb\x07\u202ec\x00\r\ud800") == "a\\x1b[31mb\\x07\\u202ec\\x00\\r\\ud800"
    assert text("café 猫 é") == "café 猫 é"


def test_attributes():
    assert (
        tag("a", class_="x", aria_label="y", open="", title=None)
        == '<a class="x" aria-label="y" open=""></a>'
    )
    assert tag("td", 3, colspan=2) == '<td colspan="2">3</td>'


def test_none_is_nothing_and_markup_is_kept():
    assert join(None, "a", None, Html("<br>"), 0) == "a<br>0"
    assert more("s", "x", opened=True) == '<details open=""><summary>s</summary>x</details>'
    assert "open" not in more("s", "x")


def test_a_long_label_breaks_after_a_bracket_or_a_comma_and_is_escaped():
    assert breakable("mole(token,steps=40)") == "mole(<wbr>token,<wbr>steps=40)"
    assert breakable("a(") == "a(" and SCRIPT not in breakable(SCRIPT)


def test_shortened_labels_of_one_method_stay_apart():
    assert shortened("uniform(factor)") == "uniform(factor)"
    one, two = (shortened(f"adapterfusion(steps=40,rate={rate})") for rate in ("3e-3", "3e-4"))
    assert one == "adapterf…ate=3e-3)" and two == "adapterf…ate=3e-4)" and len(one) == 18
