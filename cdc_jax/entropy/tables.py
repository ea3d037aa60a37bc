"""Frequency tables of the entropy coder: integer counts, built at export and stored in the bundle.

A table represents a distribution over the integers `low`, `low + 1`, …. Its last entry is the *escape* entry, with the
probability of all other integers. Escaped values are written separately (see `coder`), so that every integer can be
coded. The counts of a table sum to 2^24, every count is at least 1, and the escape's is at least 2^8. So an unlikely
symbol costs at most 16 bits plus its value. Every other symbol pays at most 2.2e-5 bits for this.

There are two families:
  y   normal distributions N(0, scale²) over unit bins centered on the integers, one table per scale of `scale_table()`
  z   the deep factorized prior of Ballé et al. 2018 (arXiv 1802.01436, appendix 6.1), one table per channel

Everything is computed with `exact_math`, integer sums and stable sorts, so that the same parameters yield the same
bytes on every machine.
"""

import heapq
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Int

from cdc_jax.entropy import exact_math
from cdc_jax.errors import BundleError

PRECISION_BITS = 24
TOTAL_COUNT = 1 << PRECISION_BITS
NUM_SCALES = 256
SCALE_MIN = 0.1
SCALE_MAX = 256.0
MAX_EXTENT = 2047  # the symbols of a factorized table are within ±MAX_EXTENT
MAX_ABS_LOW = 1 << 15  # limit on |low| that readers accept
MAX_ENTRIES = 1 << 16  # limit on the entries of a table that readers accept

ESCAPE_COUNT = 1 << 8  # smallest count of an escape: real latents have heavier tails than the model

_TAIL_MASS = 2.0**-25  # probability outside a table on each side: half a count
_TAIL_SIGMAS = 5.42  # P(X > 5.42) = 2^-25 for a standard normal
_PRIOR_WIDTHS = (1, 3, 3, 3, 1)


@dataclass(frozen=True, eq=False)
class Tables:
    """A family of frequency tables, flattened.

    Attributes:
      low: int32; `low[i]` is the symbol of entry 0 in table i.
      offsets: int32; table i has the counts `counts[offsets[i]:offsets[i + 1]]`, of which the last is the escape's.
      counts: int32, each at least 1; those of a table sum to 2^24.
    """

    low: Int[np.ndarray, " n"]
    offsets: Int[np.ndarray, " n_plus_1"]
    counts: Int[np.ndarray, " entries"]

    def __len__(self) -> int:
        return len(self.low)

    def __getitem__(self, index: int) -> Int[np.ndarray, " entries_of_one"]:
        """The counts of one table; the last is the escape's."""
        first, last = self.offsets[int(index)], self.offsets[int(index) + 1]  # int: a uint8 255 + 1 would be 0
        return self.counts[first:last]

    @property
    def sizes(self) -> Int[np.ndarray, " n"]:
        """The number of entries of each table without the escape, int32."""
        return np.diff(self.offsets) - np.int32(1)

    def validate(self, name: str, num_tables: int) -> None:
        """Raises BundleError unless there are `num_tables` valid tables. `name` appears in the message."""
        for field, array in (("low", self.low), ("offsets", self.offsets), ("counts", self.counts)):
            if array.dtype != np.int32 or array.ndim != 1:
                raise BundleError(f"The {name} tables' {field} must be a one-dimensional int32 array.")
        if len(self.low) != num_tables or len(self.offsets) != num_tables + 1:
            raise BundleError(f"The {name} tables are {len(self.low)}, but the model needs {num_tables}.")
        entries = np.diff(self.offsets.astype(np.int64))
        if self.offsets[0] != 0 or self.offsets[-1] != len(self.counts) or entries.min() < 2:
            raise BundleError(f"The {name} tables' offsets do not fit their counts.")
        if np.abs(self.low.astype(np.int64)).max() > MAX_ABS_LOW or entries.max() > MAX_ENTRIES:
            raise BundleError(f"A {name} table is larger than a table can be.")
        sums = np.add.reduceat(self.counts.astype(np.int64), self.offsets[:-1])
        if self.counts.min() < 1 or np.any(sums != TOTAL_COUNT):
            raise BundleError(f"The {name} tables' counts must be positive and sum to 2^{PRECISION_BITS}.")


def _flatten(low: list[int], counts: list[np.ndarray]) -> Tables:
    offsets = np.cumsum([0] + [len(table) for table in counts])
    arrays = np.array(low, np.int32), offsets.astype(np.int32), np.concatenate(counts).astype(np.int32)
    for array in arrays:
        array.setflags(write=False)
    return Tables(*arrays)


def integer_counts(probability: Float[np.ndarray, " entries"]) -> Int[np.ndarray, " entries"]:
    """Rounds probabilities to counts with the sum 2^24, so that the rate is nearly minimal.

    Each count is at least 1; that of the last entry, the escape, is at least ESCAPE_COUNT. Rounds to the nearest
    counts, then corrects their sum one by one where that costs the fewest bits (a greedy descent on the cross entropy,
    which is convex in the counts). Ties go to the lower entry. Moving any single count to another entry would save at
    most 4e-9 bits per symbol.

    Args:
      probability: float64, in [0, 1], with the sum 1 up to rounding; fewer than 2^16 entries.

    Raises:
      BundleError: the probabilities do not sum to 1.
    """
    least = np.ones(len(probability), np.int64)
    least[-1] = ESCAPE_COUNT
    counts = np.maximum(np.rint(np.ldexp(probability, PRECISION_BITS)).astype(np.int64), least)
    surplus = int(counts.sum()) - TOTAL_COUNT
    if abs(surplus) > 2 * len(counts) + ESCAPE_COUNT:
        raise BundleError("A table's probabilities do not sum to one: the prior's parameters are corrupt.")
    step = -1 if surplus > 0 else 1
    # Decrementing c costs p log(c / (c - 1)) ≈ p / (c - 1/2); incrementing gains p log((c + 1) / c) ≈ p / (c + 1/2).
    mass, count = probability.tolist(), counts.tolist()
    heap = [(-step * mass[i] / (count[i] + step / 2), i) for i in range(len(mass)) if step > 0 or count[i] > least[i]]
    heapq.heapify(heap)
    for _ in range(abs(surplus)):
        _, i = heap[0]
        count[i] += step
        if step < 0 and count[i] == least[i]:
            heapq.heappop(heap)
        else:
            heapq.heapreplace(heap, (-step * mass[i] / (count[i] + step / 2), i))
    return np.array(count, np.int32)


def scale_table() -> Float[np.ndarray, " 256"]:
    """The 256 scales of y's tables: float64, from 0.1 to 256 in quantization steps, evenly spaced in the logarithm."""
    first = exact_math.log(np.float64(SCALE_MIN))
    step = (exact_math.log(np.float64(SCALE_MAX)) - first) / (NUM_SCALES - 1)
    scales = exact_math.exp(first + step * np.arange(NUM_SCALES, dtype=np.float64))
    scales[0], scales[-1] = SCALE_MIN, SCALE_MAX
    return scales


def gaussian_tables(scales: Float[np.ndarray, " n"]) -> Tables:
    """Tables of N(0, scale²) integrated over the unit bins [k - 1/2, k + 1/2], one per scale.

    A table covers ±5.42 scales (at least ±1). Half a count of probability remains outside on each side.
    """
    scales = np.asarray(scales, np.float64)
    extents = np.maximum(np.ceil(_TAIL_SIGMAS * scales - 0.5), 1.0)
    sizes = extents.astype(np.int64) + 1  # entries with k >= 0; the others mirror them
    starts = np.cumsum(sizes) - sizes
    bins = (np.arange(int(sizes.sum())) - np.repeat(starts, sizes)).astype(np.float64)
    scale = np.repeat(scales, sizes)
    inside = exact_math.normal_interval((bins - 0.5) / scale, (bins + 0.5) / scale)
    outside = 2.0 * exact_math.normal_upper_tail((extents + 0.5) / scales)
    counts = []
    for i, start in enumerate(starts):
        half = inside[start : start + sizes[i]]
        counts.append(integer_counts(np.concatenate([half[:0:-1], half, outside[i : i + 1]])))
    return _flatten((-extents).astype(np.int64).tolist(), counts)


def _check_prior(prior: Mapping) -> int:
    """The number of channels of valid prior parameters. Raises BundleError if they are invalid."""
    try:
        arrays = {"medians": prior["medians"]}
        for k in range(4):
            arrays[f"weights[{k}]"], arrays[f"biases[{k}]"] = prior["weights"][k], prior["biases"][k]
        for k in range(3):
            arrays[f"gains[{k}]"] = prior["gains"][k]
    except (KeyError, IndexError, TypeError) as error:
        raise BundleError(f"The prior's parameters are incomplete: {error} is missing.") from error
    arrays = {name: np.asarray(array) for name, array in arrays.items()}
    channels = arrays["medians"].size
    if channels == 0:
        raise BundleError("The prior's parameters are for no channel at all.")
    shapes = {"medians": (channels,)}
    for k in range(4):
        shapes[f"weights[{k}]"] = (channels, _PRIOR_WIDTHS[k], _PRIOR_WIDTHS[k + 1])
        shapes[f"biases[{k}]"] = shapes[f"gains[{k}]"] = (channels, _PRIOR_WIDTHS[k + 1])
    for name, array in arrays.items():
        if array.shape != shapes[name] or array.dtype != np.float32:
            raise BundleError(f"The prior's {name} must be float32 {shapes[name]}, not {array.dtype} {array.shape}.")
        if not np.all(np.isfinite(array)):
            raise BundleError(f"The prior's {name} holds values that are not finite: the training has diverged.")
    return channels


def _cumulative_logits(prior: Mapping, channel: np.ndarray, value: np.ndarray) -> np.ndarray:
    """logit P(z < value) for each pair of channel and value, all [n]: an MLP 1-3-3-3-1, monotone in `value`.

    Finite for all finite float32 parameters: four factors of 10^38 are far from float64's limit.
    """
    hidden = [value]
    for k in range(4):
        weight = exact_math.softplus(prior["weights"][k].astype(np.float64))
        bias = prior["biases"][k].astype(np.float64)
        outputs = []
        for j in range(_PRIOR_WIDTHS[k + 1]):
            output = bias[channel, j]
            for i, x in enumerate(hidden):  # the order of summation is part of the table's definition
                output = output + weight[channel, i, j] * x
            if k < 3:
                gain = exact_math.tanh(prior["gains"][k][:, j].astype(np.float64))
                output = output + gain[channel] * exact_math.tanh(output)
            outputs.append(output)
        hidden = outputs
    return hidden[0]


def _first_integer(predicate, channels: int) -> np.ndarray:
    """For each channel the smallest k in ±MAX_EXTENT with predicate(k), which is monotone; MAX_EXTENT if none."""
    below = np.full(channels, -MAX_EXTENT - 1, np.int64)  # the predicate is false here, or assumed to be
    above = np.full(channels, MAX_EXTENT, np.int64)
    while np.any(above - below > 1):
        middle = (below + above) >> 1
        holds = predicate(middle.astype(np.float64))
        above, below = np.where(holds, middle, above), np.where(holds, below, middle)
    return above


def factorized_tables(prior: Mapping) -> Tables:
    """Tables of z = round(value - median) under the deep factorized prior, one per channel.

    P(z = k) = |sigmoid(s u) - sigmoid(s l)| with the logits l, u at k + median ∓ 1/2 and s = -sign(l + u). A table
    ends where a probability of 2^-25 remains outside on each side, and at most at ±2047.

    Args:
      prior: `weights`: four float32 arrays [channel, in, out] of widths 1-3-3-3-1, before the softplus; `biases`: four
        [channel, out]; `gains`: three [channel, out], before the tanh; `medians`: [channel].

    Raises:
      BundleError: an array is missing or not finite, or has the wrong shape.
    """
    channels = _check_prior(prior)
    medians = prior["medians"].astype(np.float64)
    every = np.arange(channels)

    def logits(channel: np.ndarray, position: np.ndarray) -> np.ndarray:
        return _cumulative_logits(prior, channel, position + medians[channel])

    # The smallest integer with P(z <= k) above the tail's probability, and the largest with P(z >= k) above it.
    low = _first_integer(lambda k: exact_math.sigmoid(logits(every, k + 0.5)) > _TAIL_MASS, channels)
    high = -_first_integer(lambda k: exact_math.sigmoid(-logits(every, -k - 0.5)) > _TAIL_MASS, channels)
    high = np.maximum(high, low)
    sizes = high - low + 1
    starts = np.cumsum(sizes) - sizes
    channel = np.repeat(every, sizes)
    symbol = (np.arange(int(sizes.sum())) - starts[channel] + low[channel]).astype(np.float64)
    lower, upper = logits(channel, symbol - 0.5), logits(channel, symbol + 0.5)
    sign = np.where(lower + upper > 0, -1.0, 1.0)
    inside = np.abs(exact_math.sigmoid(sign * upper) - exact_math.sigmoid(sign * lower))
    last = starts + sizes - 1
    outside = exact_math.sigmoid(lower[starts]) + exact_math.sigmoid(-upper[last])
    counts = [integer_counts(np.append(inside[starts[c] : last[c] + 1], outside[c])) for c in range(channels)]
    return _flatten(low.tolist(), counts)


def draw_symbols(tables: Tables, num_symbols: int) -> Int[np.ndarray, "num_symbols n"]:
    """Random symbols from the tables' distributions, int32, the same on every machine. Column i is from table i.

    SplitMix64 (Steele et al. 2014) with a counter in raster order generates 24 bits for each symbol, which select an
    entry by the cumulative counts. An escape yields the table's largest symbol.
    """
    golden, mix_1, mix_2 = (
        np.uint64(constant) for constant in (0x9E3779B97F4A7C15, 0xBF58476D1CE4E5B9, 0x94D049BB133111EB)
    )
    state = np.arange(1, num_symbols * len(tables) + 1, dtype=np.uint64) * golden
    state = (state ^ (state >> np.uint64(30))) * mix_1
    state = (state ^ (state >> np.uint64(27))) * mix_2
    state = state ^ (state >> np.uint64(31))
    quantile = (state >> np.uint64(64 - PRECISION_BITS)).astype(np.int64).reshape(num_symbols, len(tables))
    symbols = np.empty((num_symbols, len(tables)), np.int32)
    for i, size in enumerate(tables.sizes):
        entry = np.searchsorted(np.cumsum(tables[i], dtype=np.int64), quantile[:, i], side="right")
        symbols[:, i] = np.minimum(entry, size - 1) + tables.low[i]
    return symbols
