import decimal
from decimal import Decimal

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cdc_jax.entropy.integer_gains import MAX_LEVEL, MAX_LOG2, IntegerGains, quantize_gains
from cdc_jax.errors import BundleError
from tests.helpers import python_latents

_EVERY_LOG2 = IntegerGains(np.arange(-MAX_LOG2, MAX_LOG2 + 1, dtype=np.int32)[None])

_SCRIPT = """
import hashlib
import numpy as np
from cdc_jax.entropy.integer_gains import quantize_gains
rng = np.random.default_rng(0)
gains = quantize_gains(np.cumsum(rng.uniform(0, 1, (8, 2000)), axis=0) - 2)
digest = hashlib.sha256(gains.anchors.tobytes())
for level in range(0, 25601, 100):
    found = gains.at(level, 13)
    digest.update(found.log2.astype("<i8").tobytes() + found.inverse.astype("<i8").tobytes())
print(digest.hexdigest())
"""


def _gains(*anchors) -> IntegerGains:
    return IntegerGains(np.array(anchors, np.int32))


def _drawn(anchors: int, channels: int = 3, seed: int = 0) -> IntegerGains:
    rng = np.random.default_rng(seed)
    return IntegerGains(np.sort(rng.integers(-MAX_LOG2, MAX_LOG2 + 1, (anchors, channels)), axis=0).astype(np.int32))


@pytest.mark.parametrize("anchors", [1, 2, 3, 5, 6, 9, 11, 26, 33, 51])
def test_exact_at_the_anchors(anchors):
    gains = _drawn(anchors)
    for k in range(anchors):
        level, rest = divmod(MAX_LEVEL * k, max(anchors - 1, 1))
        assert rest == 0
        np.testing.assert_array_equal(gains.at(level, 16).log2, gains.anchors[k])


@pytest.mark.parametrize("anchors", [4, 64])
def test_gains_grow_with_the_level(anchors):
    """Over all 25,601 levels, log2 g never decreases and 1/g never increases, and every channel changes."""
    gains = _drawn(anchors, seed=anchors)
    found = [gains.at(level, 16) for level in range(MAX_LEVEL + 1)]
    log2, inverse = (np.stack([getattr(one, name) for one in found]) for name in ("log2", "inverse"))
    assert (np.diff(log2, axis=0) >= 0).all() and (np.diff(inverse, axis=0) <= 0).all()
    np.testing.assert_array_equal(log2[[0, -1]], gains.anchors[[0, -1]])
    assert (log2[1:] != log2[:-1]).mean() > 0.5


@given(st.data())
def test_a_line_between_two_anchors(data):
    """Compared with rounded fractions."""
    count = data.draw(st.integers(2, 64))
    column = sorted(data.draw(st.lists(st.integers(-MAX_LOG2, MAX_LOG2), min_size=count, max_size=count)))
    level, bits = data.draw(st.integers(0, MAX_LEVEL)), data.draw(st.integers(0, 16))
    found = _gains(*[[value] for value in column]).at(level, bits)
    with decimal.localcontext(prec=50):
        position = Decimal(level * (count - 1)) / MAX_LEVEL
        k = min(int(position), count - 2)
        exact = column[k] + (column[k + 1] - column[k]) * (position - k)
        assert abs(int(found.log2[0]) - exact) <= Decimal("0.5")
    coding = {"log2_gains": [[value] for value in column], "fractional_bits": [0, 0, 0, bits]}
    assert (found.log2.tolist(), found.inverse.tolist()) == python_latents.gains(coding, level)


@pytest.mark.parametrize("bits", [0, 7, 16])
def test_gain_times_inverse_is_one(bits):
    """For every possible log2 g, up to 2^-24 and the rounding of 1/g."""
    found = _EVERY_LOG2.at(0, bits)
    exact = np.exp2(bits + 16 - _EVERY_LOG2.anchors[0] / 65536)
    assert (np.abs(found.inverse - exact) <= 0.51 + exact * 2.0**-24).all()
    assert np.abs(found.gains() * found.inverse * 2.0 ** -(bits + 16) - 1).max() < 2.0**-23 + 0.51 / exact.min()
    steps = np.diff(found.inverse)
    assert (steps < 0).all() if bits == 16 else (steps <= 0).all()


def test_powers_of_two_are_exact():
    whole = np.arange(-7, 8, dtype=np.int32)
    for bits in (0, 5, 16):
        inverse = IntegerGains((whole << 16)[None]).at(100, bits).inverse
        assert inverse.tolist() == [1 << (bits + 16 - int(k)) for k in whole]


def test_the_numbers_never_change():
    """Golden: files depend on each of these numbers."""
    gains = _gains([-MAX_LOG2, -98765, 0, 1], [-300000, 12345, 70000, 65535], [5, 99999, 400000, MAX_LOG2])
    found = [gains.at(level, 14) for level in (0, 1, 9472, 25600)]
    assert [one.log2.tolist() for one in found] == [
        [-458752, -98765, 0, 1],
        [-458740, -98756, 5, 6],
        [-341276, -16544, 51800, 48496],
        [5, 99999, 400000, 458752],
    ]
    assert [one.inverse.tolist() for one in found] == [
        [137438953472, 3051844452, 1073741824, 1073730447],
        [137421508800, 3051553974, 1073685023, 1073673669],
        [39673551072, 1279064083, 620817813, 642895833],
        [1073685023, 372880041, 15615597, 8388608],
    ]


def test_bits_do_not_depend_on_the_cpu(check_same_on_every_cpu):
    check_same_on_every_cpu(_SCRIPT)


@pytest.mark.parametrize("level", [-1, MAX_LEVEL + 1])
def test_levels_that_do_not_exist(level):
    with pytest.raises(ValueError, match="level"):
        _drawn(4).at(level, 16)


@pytest.mark.parametrize(
    "anchors",
    [
        np.zeros((0, 3), np.int32),
        np.zeros((65, 3), np.int32),
        np.zeros((4, 0), np.int32),
        np.zeros(4, np.int32),
        np.zeros((4, 3), np.int64),
        np.zeros((4, 3), np.float32),
        np.array([[0, 0], [1, -1]], np.int32),
        np.array([[MAX_LOG2 + 1]], np.int32),
        np.array([[-MAX_LOG2 - 1]], np.int32),
        np.array([[-(2**31)]], np.int32),
        np.array([[-(2**31)], [2**31 - 1]], np.int32),
    ],
)
def test_invalid_gains_are_refused(anchors):
    with pytest.raises(BundleError, match="gains"):
        IntegerGains(anchors)


def test_export_rounds_clips_and_orders():
    gains = quantize_gains(np.array([[0.25, -9.0, 1.0], [0.5 + 2.0**-18, 2.0, 0.9], [0.75, 9.0, 1.1]]))
    assert gains.anchors.dtype == np.int32
    assert gains.anchors.tolist() == [[16384, -MAX_LOG2, 65536], [32768, 131072, 65536], [49152, MAX_LOG2, 72090]]
    for bad in (np.nan, np.inf):
        with pytest.raises(BundleError, match="diverged"):
            quantize_gains(np.array([[bad]]))
