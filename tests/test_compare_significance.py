"""The tests of significance against scipy, a loop over all signs, and a correction worked out by hand."""

from __future__ import annotations

import itertools
import statistics

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import special, stats

from hetgraph.significance import MOST_EXACT, holm, incomplete_beta, paired_t, sign_flip, standard_error, t_tails

# a grid of whole numbers: their sums are exact, so the loop below needs no tolerance
DIFFERENCES = st.lists(st.integers(-20, 20), min_size=1, max_size=9)


@given(DIFFERENCES)
def test_the_permutation_test_tries_every_pattern_of_signs(differences) -> None:
    observed = abs(sum(differences))
    patterns = list(itertools.product((1, -1), repeat=len(differences)))
    far = [abs(sum(s * d for s, d in zip(signs, differences, strict=True))) >= observed for signs in patterns]
    assert sign_flip(differences) == sum(far) / len(patterns)


@given(st.lists(st.floats(-1, 1, allow_subnormal=False), min_size=2, max_size=8))
def test_the_permutation_test_is_that_of_scipy_and_does_not_see_the_order(differences) -> None:
    scaled = [round(d, 3) for d in differences]
    expected = stats.permutation_test(
        (np.array(scaled) * 1000,), lambda x: round(x.sum()), permutation_type="samples", n_resamples=np.inf
    ).pvalue
    assert sign_flip(scaled) == pytest.approx(min(expected, 1.0))
    assert sign_flip(scaled[::-1]) == sign_flip(scaled)
    assert sign_flip([-d for d in scaled]) == sign_flip(scaled)


def test_the_permutation_test_cannot_go_below_two_of_all_patterns() -> None:
    assert [sign_flip([0.1] * n) for n in (1, 5, 6)] == [1.0, 2 / 32, 2 / 64]
    for count in (0, MOST_EXACT + 1):
        with pytest.raises(ValueError, match="differences"):
            sign_flip([1.0] * count)


@given(st.lists(st.floats(-10, 10).map(lambda d: round(d, 4)), min_size=2, max_size=30))
def test_the_t_test_is_that_of_scipy(differences) -> None:
    if statistics.stdev(differences) < 1e-9:
        return
    assert paired_t(differences) == pytest.approx(stats.ttest_1samp(differences, 0).pvalue, rel=1e-8, abs=1e-14)
    assert standard_error(differences) == pytest.approx(stats.sem(differences))


def test_differences_without_a_spread() -> None:
    assert paired_t([0.5]) is None
    assert standard_error([0.5]) is None
    assert paired_t([0.0, 0.0, 0.0]) == 1.0
    assert paired_t([0.1, 0.1, 0.1]) == 0.0


@pytest.mark.parametrize("freedom", [1, 2, 4, 9, 30, 200])
def test_the_tails_of_t_reach_far(freedom) -> None:
    for t in (0.0, 1e-6, 0.3, 1.0, 2.5, -2.5, 8.0, 60.0, 1e4):
        assert t_tails(t, freedom) == pytest.approx(2 * stats.t.sf(abs(t), freedom), rel=1e-9, abs=1e-300)


@given(st.floats(0.1, 50), st.floats(0.1, 50), st.floats(0, 1))
def test_the_incomplete_beta_function_is_that_of_scipy(a, b, x) -> None:
    assert incomplete_beta(a, b, x) == pytest.approx(special.betainc(a, b, x), rel=1e-8, abs=1e-13)


def test_holm_by_hand() -> None:
    # sorted .005 .01 .03 .04 times 4 3 2 1: .02 .03 .06 .04, and the last may not fall below the one before
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert holm([0.6, 0.5]) == [1.0, 1.0]
    assert holm([]) == []
