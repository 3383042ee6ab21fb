"""The tests of differences: worked examples with known answers, scipy's own functions, and what has no answer."""

import json

import numpy as np
import pytest
from scipy import stats

from r2r.evaluation.significance import holm, interval, is_marked, legend, paired_tests, randomization, t_test

# Darwin's maize: height of a crossed minus a self-fertilised plant, in eighths of an inch. Fisher counts 863 of the
# 32,768 sign patterns with at least this sum (The Design of Experiments, 1935, section 21), and t = 2.148.
DARWIN = [49, -67, 8, 16, 6, 23, 28, 41, 14, 29, 56, 24, 75, 60, -48]
# R's data set `sleep`. t.test(extra ~ group, paired = TRUE): p = 0.002833.
DRUG_1 = [0.7, -1.6, -0.2, -1.2, -0.1, 3.4, 3.7, 0.8, 0.0, 2.0]
DRUG_2 = [1.9, 0.8, 1.1, 0.1, -0.1, 4.4, 5.5, 1.6, 4.6, 3.4]


def column(numbers):
    return np.array(numbers, dtype=float)[:, None]


def compared(base, **systems):
    """Test systems whose values for one measure are given as lists."""
    values = {name: {"AP": {f"q{at}": float(one) for at, one in enumerate(row)}} for name, row in systems.items()}
    values["base"] = {"AP": {f"q{at}": float(one) for at, one in enumerate(base)}}
    return paired_tests(values, "base")


def test_fishers_own_example():
    (p,) = randomization(column(DARWIN))
    assert p == pytest.approx(2 * 863 / 32_768, abs=0.007)
    assert t_test(column(DARWIN), 0 * column(DARWIN)) == pytest.approx(0.0497, abs=5e-5)


def test_r_sleep():
    row = compared(DRUG_1, drug=DRUG_2)["systems"]["drug"]["AP"]
    assert row["difference"] == pytest.approx(1.58)
    assert row["p_t"] == pytest.approx(0.002833, abs=5e-7)
    # All differences but one, which is 0, have one sign: 2 patterns, and 2 for the other sign, of 2 ** 10.
    assert row["p_permutation"] == row["p_holm"] == 4 / 1024


def test_same_as_scipy():
    rng = np.random.default_rng(7)
    for queries in (6, 13, 60):
        differences = rng.normal(0.03, 0.1, (queries, 4))
        differences[::3] = 0
        found, (low, high) = randomization(differences), interval(differences)
        for at, row in enumerate(differences.T):
            given = {"n_resamples": 10_000, "rng": 1}
            p = stats.permutation_test((row,), np.mean, permutation_type="samples", **given).pvalue
            assert found[at] == pytest.approx(p, abs=0 if queries <= 13 else 0.02)
            ends = stats.bootstrap((row,), np.mean, method="percentile", **given).confidence_interval
            assert (low[at], high[at]) == pytest.approx((ends.low, ends.high), abs=0.003)
        base = rng.random(differences.shape)
        assert t_test(base + differences, base) == pytest.approx(stats.ttest_rel(base + differences, base).pvalue)


def test_sums_that_are_equal_on_paper_are_equal():
    whole = np.random.default_rng(7).integers(-5, 6, (9, 50)).astype(float)
    assert list(randomization(whole / 10)) == list(randomization(whole))


def test_batches_change_nothing(monkeypatch):
    differences = np.random.default_rng(7).normal(0.03, 0.1, (40, 2))
    whole = [*randomization(differences), *interval(differences)[0], randomization(differences[:9])[0]]
    monkeypatch.setattr("r2r.evaluation.significance._BATCH", 1000)
    assert [*randomization(differences), *interval(differences)[0], randomization(differences[:9])[0]] == pytest.approx(
        whole
    )


def test_interval_of_a_normal_sample_is_that_of_the_normal_distribution():
    differences = stats.norm.ppf((np.arange(400) + 0.5) / 400)[:, None]
    low, high = interval(differences)
    half = 1.96 * differences.std() / np.sqrt(400)
    assert (low[0], high[0]) == pytest.approx((-half, half), abs=0.05 * half)


@pytest.mark.parametrize(
    ("p", "corrected"),
    [
        # p.adjust(p, "holm") in R.
        ([0.01, 0.02, 0.03, 0.04, 0.05], [0.05, 0.08, 0.09, 0.09, 0.09]),
        ([0.04, 0.01, 0.03], [0.06, 0.03, 0.06]),
        ([0.5, 1.0, 0.001, 0.7], [1.0, 1.0, 0.004, 1.0]),
        ([0.2], [0.2]),
    ],
)
def test_holm_as_in_r(p, corrected):
    assert holm(np.array(p)) == pytest.approx(corrected)


def test_correction_counts_all_systems_and_measures():
    rng = np.random.default_rng(3)
    values = {
        name: {measure: {f"q{at}": one for at, one in enumerate(rng.random(30) + shift)} for measure in ("AP", "RR")}
        for name, shift in (("base", 0.0), ("a", 0.2), ("b", 0.1))
    }
    found = paired_tests(values, "base")["systems"]
    rows = [found[system][measure] for system in ("a", "b") for measure in ("AP", "RR")]
    alone = np.array([row["p_permutation"] for row in rows])
    assert [row["p_holm"] for row in rows] == pytest.approx(holm(alone)) and len(set(alone)) == 4
    assert paired_tests(values, "base") == paired_tests(values, "base")


def test_the_mark_is_for_what_differs():
    good = np.linspace(0.2, 0.4, 20)
    found = compared(0 * good, better=good, worse=-good, same=0 * good)
    assert [is_marked(found, name, "AP") for name in ("better", "worse", "same", "base", "oracle")] == [
        *(True, True, False, False, False)
    ]
    assert legend(found).startswith("* differs from base: p < 0.05")
    assert legend(compared(good, same=good)).startswith("no run differs significantly from base: ")
    assert legend(compared(good)) == "" and compared(good) == {"baseline": "base", "systems": {}}


@pytest.mark.parametrize(
    ("base", "system", "p_t", "p_permutation"),
    [
        pytest.param([0.3, 0.4, 0.5], [0.3, 0.4, 0.5], 1, 1, id="equal"),
        pytest.param([0.0] * 50, [0.0] * 50, 1, 1, id="all 0"),
        pytest.param([0.2], [0.7], 1, 1, id="one query"),
        pytest.param([0.2], [0.2], 1, 1, id="one query that is equal"),
        pytest.param([0.25] * 4, [0.75] * 4, 0, 2 / 16, id="the same difference everywhere"),
        pytest.param([0.0, 0.0], [1.0, -1.0], 1, 1, id="no mean difference"),
    ],
)
def test_where_there_is_little_to_test(base, system, p_t, p_permutation):
    found = compared(base, system=system)
    row = found["systems"]["system"]["AP"]
    assert (row["p_t"], row["p_permutation"], row["p_holm"]) == (p_t, p_permutation, p_permutation)
    assert row["low"] <= row["difference"] <= row["high"]
    assert json.loads(json.dumps(found, allow_nan=False)) == found
