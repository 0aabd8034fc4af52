"""What differs between processes is named, with its value in both."""

from moejax.parallel.agree import _flat, agree, difference

AT = ["north", "south", "south"]


def test_the_first_difference_is_named_with_both_hosts():
    one = _flat({"config": {"seed": 0, "data": {"folder": "x"}}, "versions": {"jax": "0.10.2"}})
    assert one == {"config.seed": "0", "config.data.folder": '"x"', "versions.jax": '"0.10.2"'}
    assert difference([one, dict(one), dict(one)], AT) is None
    assert difference([one, dict(one), one | {"config.seed": "1"}], AT) == (
        "config.seed is 0 in process 0 (north) and 1 in process 2 (south): start all processes with the same command, "
        "data and versions"
    )


def test_what_one_lacks_is_a_difference():
    one = {"data.ann": '"ab"'}
    found = [difference(pair, AT) for pair in ([one, {}], [{}, one])]
    assert [text and text.split(": ")[0] for text in found] == [
        'data.ann is "ab" in process 0 (north) and nothing in process 1 (south)',
        'data.ann is nothing in process 0 (north) and "ab" in process 1 (south)',
    ]


def test_a_process_alone_agrees_with_itself():
    agree(anything=object())
