"""What bytes and operations alone give, against numbers worked out by hand."""

import pytest

from benchmarks import limits
from benchmarks.cases import Size
from benchmarks.machine import Rates

READS_AT_ONCE, COUNTS_AT_ONCE = Rates(1e9, 1e30), Rates(1e30, 1e9)


def test_decoding_reads_the_base_the_prototypes_and_the_chosen():
    assert limits.decode(Size(1, 1024, 256, 2, 16)) == pytest.approx(1 + 0.25 + 0.0625)
    assert limits.decode(Size(1, 4096, 256, 2, 16)) == pytest.approx(1 + 0.0625 + 0.015625)


def test_operations_of_the_chosen_and_of_the_scores():
    size = Size(512, 1024, 256, 2, 16)
    assert limits.layer(size, READS_AT_ONCE) == pytest.approx(1 + 2 * 16 * 2 / 1024)
    assert limits.layer(size, READS_AT_ONCE, scored=True) == pytest.approx(1 + 64 / 1024 + 256 / 1024)
    assert limits.layer(size, READS_AT_ONCE, back=True) == pytest.approx(1 + 3 * 64 / 1024 / 2)


def test_bytes_of_the_experts_that_some_token_chooses():
    size = Size(1, 1024, 256, 2, 16)
    assert limits.read(size) == pytest.approx(2)
    assert limits.read(Size(10**6, 1024, 256, 2)) == pytest.approx(256)
    assert limits.layer(size, COUNTS_AT_ONCE) == pytest.approx(1 + 2 * 16 * 2048 / (1024**2 + 2048))


def test_a_merge_costs_the_lesser_of_its_two_ways():
    many, few = (limits.layer(Size(n, 1024, 8, 2, 16), READS_AT_ONCE, merged=True) for n in (10**6, 1))
    assert many == pytest.approx(1 + 2 * 128 / 1024)  # through every rank: 8 x 16 of 1024, twice
    assert few == pytest.approx(1 + 2 * 128 / 1024)
    wide = limits.layer(Size(10**6, 64, 64, 2, 16), READS_AT_ONCE, merged=True)
    assert wide == pytest.approx(2, rel=0.01)  # one update of the base's size


def test_a_whole_model():
    sites = [(4, 4), (4, 8)]
    assert limits.model(sites, 16, 10, 1, 1, 2) == pytest.approx((64 + 2 * 8 + 2 * 12) / 64)
    routed = limits.model(sites, 16, 1, 8, 2, 2, reading=True)
    assert routed == pytest.approx((64 + 2 * 2 * 20 + 8 * 8) / 64)
