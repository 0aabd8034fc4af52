"""A growing answer on the screen: only what is sure is shown."""

import io

import pytest

from moejax.commands.typewriter import Typewriter


def shown(*texts, stops=()):
    """What stands on the screen after each text."""
    screen, found = io.StringIO(), []
    writer = Typewriter(screen.write, stops)
    for i, text in enumerate(texts):
        writer(0, text, i == len(texts) - 1)
        found.append(screen.getvalue())
    return found


def test_what_is_new_is_added():
    assert shown("one", "one two", "one two.") == ["one", "one two", "one two.\n"]


def test_half_a_letter_waits_for_its_other_half():
    assert shown("caf\ufffd", "café", "café") == ["caf", "café", "café\n"]
    assert shown("caf\ufffd") == ["caf\ufffd\n"]


@pytest.mark.parametrize("stops", [("\n\nQ:",), ("Z", "\n\nQ:")])
def test_the_beginning_of_a_stop_string_waits(stops):
    assert shown("yes\n", "yes\n\nQ", "yes", stops=stops) == ["yes", "yes", "yes\n"]
    assert shown("yes\n", "yes\nno", "yes\nno", stops=stops) == ["yes", "yes\nno", "yes\nno\n"]


def test_a_tokenizer_that_changes_its_mind_says_the_whole_again():
    assert shown("a b", "a-b", "a-b!") == ["a b", "a b", "a b\na-b!\n"]
