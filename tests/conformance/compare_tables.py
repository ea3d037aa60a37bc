"""The coder's integer tables, compared with TFC's probabilities in float64 and with TFC's own tables.

The cost of a table is the cross entropy of its counts less the entropy of the distribution, in bits per symbol.
"""

import numpy as np
import pytest
import tensorflow as tf
import tensorflow_compression as tfc
from oracle import deep_factorized, probability, quantized_counts

PRECISION = 24
TFC_PRECISION = 16  # the largest of pmf_to_quantized_cdf; TFC's default is 12

COUNT_LIMIT = 8.0  # of 2^24; rounding alone gives 1/2, but all counts of a table sum to 2^24
ESCAPE_COUNT = 2**8  # the smallest count of an escape entry
COST_LIMIT = 1e-4  # bits per symbol


def cost_bits(probability: np.ndarray, counts: np.ndarray) -> float:
    present = probability > 0
    p = probability[present]
    return float(p @ (np.log2(p) + np.log2(counts.sum()) - np.log2(counts[present])))


def compare(arrays: dict, letter: str, pmf: np.ndarray, shift: int = 0) -> tuple[float, np.ndarray, np.ndarray]:
    """(largest difference in counts, our costs, TFC's costs), over all tables of one letter.

    Args:
      pmf: float64 [entries, tables]: of low, low + 1, … in each table.
      shift: compares table i with distribution i + shift, which must show.
    """
    low, offsets, counts = (arrays[f"{letter}_{name}"] for name in ("low", "offsets", "counts"))
    differences, ours, theirs = [], [], []
    for i in range(len(low) - shift):
        table = counts[offsets[i] : offsets[i + 1]]
        inside = pmf[: len(table) - 1, i + shift]
        distribution = np.append(inside, max(1 - inside.sum(), 0))  # the last entry is the escape
        escape = max(distribution[-1] * 2**PRECISION, ESCAPE_COUNT)
        expected = np.append(inside / inside.sum() * (2**PRECISION - escape), escape)
        differences.append(np.abs(table - expected).max())
        ours.append(cost_bits(distribution, table))
        theirs.append(cost_bits(distribution, quantized_counts(distribution, TFC_PRECISION)))
    return max(differences), np.array(ours), np.array(theirs)


def symbols_of(arrays: dict, letter: str) -> np.ndarray:
    """Float64 [entries, tables]: each table's symbols, from its low upwards."""
    low, offsets = arrays[f"{letter}_low"], arrays[f"{letter}_offsets"]
    return low + np.arange(np.diff(offsets).max() - 1, dtype=np.float64)[:, None]


def normal_pmf(gaussian: dict) -> np.ndarray:
    normal = tfc.NoisyNormal(loc=tf.constant(0, tf.float64), scale=tf.constant(gaussian["scales"]))
    return probability(normal, symbols_of(gaussian, "y"))


def factorized_pmf(arrays: dict) -> np.ndarray:
    return probability(deep_factorized(arrays), symbols_of(arrays, "z") + arrays["medians"].astype(np.float64))


def check(comparison: tuple, report=None) -> None:
    difference, ours, theirs = comparison
    if report:
        report("tables, counts of 2^24", f"{difference:.1f}", f"{COUNT_LIMIT}")
        report("tables' cost, bits per symbol", f"{ours.max():.1e}", f"{COST_LIMIT:.0e}")
        report(f"  TFC's at {TFC_PRECISION} bits, the same tables", f"{theirs.max():.1e}", "each above ours")
    assert difference <= COUNT_LIMIT
    assert ours.max() <= COST_LIMIT
    assert np.all(ours < theirs)


def test_tables_of_y(gaussian, report):
    assert len(gaussian["y_low"]) == 256
    check(compare(gaussian, "y", normal_pmf(gaussian)), report)


def test_tables_of_z(arrays, report):
    check(compare(arrays, "z", factorized_pmf(arrays)), report)


def test_tables_of_the_next_scale_are_refused(gaussian):
    with pytest.raises(AssertionError):
        check(compare(gaussian, "y", normal_pmf(gaussian), shift=1))


def test_tables_around_other_medians_are_refused(arrays):
    moved = {**arrays, "medians": arrays["medians"] + np.float32(0.01)}
    with pytest.raises(AssertionError):
        check(compare(arrays, "z", factorized_pmf(moved)))


def test_moved_counts_are_refused(gaussian):
    counts = gaussian["y_counts"].copy()
    middle = (gaussian["y_offsets"][128] + gaussian["y_offsets"][129]) // 2
    counts[middle] -= 16
    counts[middle + 1] += 16
    with pytest.raises(AssertionError):
        check(compare({**gaussian, "y_counts": counts}, "y", normal_pmf(gaussian)))
