"""Significance: is a system's difference from the baseline more than chance, and how large may it be?

Owns the paired tests of every system against one, the correction for testing many times, the interval of a difference,
and the mark in the table with the words that say what it means. Does not own the values, nor where they are shown.

    paired_tests({"bm25": {"nDCG@10": {"q1": 0.2, ...}}, "student": {"nDCG@10": {"q1": 0.5, ...}}}, "bm25")
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

from r2r.evaluation.measures import Values

if TYPE_CHECKING:
    from numpy import ndarray
    from numpy.random import Generator

PERMUTATIONS = RESAMPLES = 10_000
LEVEL = 0.05
MARK = "*"
# Numbers of a matrix of permutations or resamples that are in memory at the same time.
_BATCH = 2**22


def paired_tests(values: Mapping[str, Values], baseline: str) -> dict[str, Any]:
    """Return the tests of all systems against the baseline, as metrics.json has them.

    values: system -> measure -> qid -> value, over the same queries for each system. Returns {"baseline": its name,
    "systems": {system: {measure: {...}}}} with these figures of each system but the baseline:

    - `difference`: the system's mean minus the baseline's. `low`, `high`: its 95 % interval.
    - `p_t`: the paired t-test's two-sided p. It is 1 where the test is not defined: for one query, or where no query
      differs. It is 0 where all queries differ by the same amount, as in scipy.
    - `p_permutation`: two-sided p of Fisher's randomization test (`randomization`).
    - `p_holm`: `p_permutation` after Holm's correction over all systems and measures here.

    M. D. Smucker, J. Allan, B. Carterette: A comparison of statistical significance tests for information retrieval
    evaluation, CIKM 2007, compares these tests on TREC runs.
    """
    import numpy as np

    first, *_ = values[baseline].values()
    pairs = [(system, measure) for system in values if system != baseline for measure in values[system]]
    if not pairs:
        return {"baseline": baseline, "systems": {}}

    def matrix(columns: list[tuple[str, str]]) -> ndarray:
        return np.array([[values[system][measure][qid] for system, measure in columns] for qid in first])

    systems, base = matrix(pairs), matrix([(baseline, measure) for _, measure in pairs])
    differences = systems - base
    low, high = interval(differences)
    by_permutation = randomization(differences)
    figures = {
        "difference": differences.mean(axis=0),
        "low": low,
        "high": high,
        "p_t": t_test(systems, base),
        "p_permutation": by_permutation,
        "p_holm": holm(by_permutation),
    }
    found: dict[str, Any] = {}
    for column, (system, measure) in enumerate(pairs):
        found.setdefault(system, {})[measure] = {name: float(row[column]) for name, row in figures.items()}
    return {"baseline": baseline, "systems": found}


def t_test(systems: ndarray, base: ndarray) -> ndarray:
    """Return the two-sided p of the paired t-test (`scipy.stats.ttest_rel`) for each column; 1 where it has none.

    systems, base: queries x columns.
    """
    import warnings

    import numpy as np
    from scipy import stats

    with warnings.catch_warnings(), np.errstate(all="ignore"):
        # One query, and queries that all differ by the same amount.
        warnings.simplefilter("ignore", RuntimeWarning)
        return np.nan_to_num(np.atleast_1d(stats.ttest_rel(systems, base, axis=0).pvalue), nan=1.0)


def randomization(differences: ndarray) -> ndarray:
    """Return the two-sided p of Fisher's paired randomization test for each column of queries x columns.

    If a system and the baseline were the same, each query's difference could as well have the other sign. p is the
    share of the sign patterns whose mean difference is at least as far from 0 as the one that was found: of all
    patterns where there are at most 10,000 (up to 13 queries), else of 10,000 drawn with a fixed seed and the one that
    was found, (found + 1) / (10,000 + 1).

    R. A. Fisher: The Design of Experiments, 1935, section 21. For the + 1: B. Phipson, G. K. Smyth: Permutation
    p-values should never be zero, 2010. Same as `scipy.stats.permutation_test` with permutation_type="samples", which
    takes minutes for a table over some thousand queries.
    """
    import numpy as np

    # Sums that are equal on paper may differ in their last digits.
    observed = abs(differences.sum(axis=0)) - 1e-12 * abs(differences).sum(axis=0)
    queries = len(differences)
    patterns = min(2**queries, PERMUTATIONS)
    as_far = np.zeros(differences.shape[1])
    for signs in _signs(queries, patterns):
        as_far += (abs(signs @ differences) >= observed).sum(axis=0)
    return as_far / patterns if patterns == 2**queries else (as_far + 1) / (patterns + 1)


def _signs(queries: int, patterns: int) -> Iterator[ndarray]:
    """Yield sign patterns, rows of 1 and -1, in batches: all 2 ** queries of them, or as many at random."""
    import numpy as np

    rng, each = np.random.default_rng(0), max(1, _BATCH // queries)
    for start in range(0, patterns, each):
        count = min(each, patterns - start)
        if patterns == 2**queries:
            bits = np.arange(start, start + count)[:, None] >> np.arange(queries) & 1
        else:
            bits = rng.integers(0, 2, (count, queries), dtype=np.int8)
        yield 2.0 * bits - 1.0


def interval(differences: ndarray) -> tuple[ndarray, ndarray]:
    """Return the 95 % bootstrap interval of each column's mean: its lower and upper ends.

    differences: queries x columns. The queries are drawn 10,000 times with replacement, with a fixed seed; the ends are
    percentiles of the means. B. Efron, R. J. Tibshirani: An Introduction to the Bootstrap, 1993, section 13.3. Same as
    `scipy.stats.bootstrap` with method="percentile", for all columns at once.
    """
    import numpy as np

    rng, queries = np.random.default_rng(0), len(differences)
    each = max(1, _BATCH // queries)
    means = [_resampled(rng, differences, min(each, RESAMPLES - start)) for start in range(0, RESAMPLES, each)]
    low, high = np.quantile(np.concatenate(means), [0.025, 0.975], axis=0)
    return low, high


def _resampled(rng: Generator, differences: ndarray, count: int) -> ndarray:
    """Return the columns' means over `count` draws of the queries: draws x columns."""
    import numpy as np

    queries = len(differences)
    drawn = rng.integers(0, queries, (count, queries)) + queries * np.arange(count)[:, None]
    times = np.bincount(drawn.ravel(), minlength=count * queries).reshape(count, queries)
    return times @ differences / queries


def holm(p: ndarray) -> ndarray:
    """Return p-values after Holm's step-down correction, in their order: p.adjust(p, "holm") in R.

    S. Holm: A simple sequentially rejective multiple test procedure, 1979.
    """
    import numpy as np

    order = np.argsort(p)
    raised = np.maximum.accumulate(p[order] * np.arange(len(p), 0, -1))
    corrected = np.empty_like(raised)
    corrected[order] = np.minimum(raised, 1.0)
    return corrected


def is_marked(found: Mapping[str, Any], system: str, measure: str) -> bool:
    """Return whether a figure of the table gets the mark. found: from `paired_tests`."""
    return system in found["systems"] and found["systems"][system][measure]["p_holm"] < LEVEL


def legend(found: Mapping[str, Any]) -> str:
    """Return the line that says what the mark means; "" where nothing was tested."""
    if not found["systems"]:
        return ""
    marked = any(is_marked(found, system, measure) for system, row in found["systems"].items() for measure in row)
    start = f"{MARK} differs from" if marked else "no run differs significantly from"
    return (
        f"{start} {found['baseline']}: p < {LEVEL:g} by a paired randomization test over the queries, Holm-corrected "
        f"over all runs and measures"
    )
