import decimal
from decimal import Decimal

import numpy as np
import pytest

from cdc_jax.entropy import exact_math

_PRECISE = decimal.Context(prec=60, Emax=decimal.MAX_EMAX, Emin=decimal.MIN_EMIN)

_SCRIPT = """
import hashlib
import numpy as np
from cdc_jax.entropy import exact_math
x = np.concatenate([np.linspace(-40, 40, 20001), np.linspace(-700, 700, 5001), 2.0 ** np.arange(-60, 9)])
digest = hashlib.sha256()
for name in ("exp", "expm1", "softplus", "sigmoid", "tanh", "normal_upper_tail"):
    digest.update(getattr(exact_math, name)(x).tobytes())
for name in ("log", "log1p"):
    digest.update(getattr(exact_math, name)(np.abs(x) + 1e-9).tobytes())
digest.update(exact_math.normal_interval(x - 0.3, x + 0.2).tobytes())
print(digest.hexdigest())
"""


def _upper_tail(t: Decimal) -> Decimal:
    """P(X > t) by the series around 0, with so many digits that cancellation does not matter."""
    with decimal.localcontext(_PRECISE) as context:
        context.prec = 60 + int(t * t)
        term, total, k = t, t, 0
        while term > total.scaleb(-context.prec):
            k += 1
            term = term * t * t / (2 * k + 1)
            total += term
        # 1/2 and the series agree to t²/2 nats, so pi must be that precise too.
        pi = _many_digits_of_pi(context.prec)
        return Decimal("0.5") - (-t * t / 2).exp() / (2 * pi).sqrt() * total


def _many_digits_of_pi(digits: int) -> Decimal:
    """Machin's formula."""
    with decimal.localcontext() as context:
        context.prec = digits + 5
        total = Decimal(0)
        for factor, base in ((16, 5), (-4, 239)):
            power, k = Decimal(1) / base, 0
            while abs(power) > Decimal(10) ** -(digits + 5):
                total += factor * power / (2 * k + 1)
                power, k = -power / (base * base), k + 1
        return total


def _references() -> dict:
    return {
        "exp": lambda x: x.exp(),
        "expm1": lambda x: x.exp() - 1,
        "log": lambda x: x.ln(),
        "log1p": lambda x: (1 + x).ln(),
        "softplus": lambda x: (1 + x.exp()).ln(),
        "sigmoid": lambda x: 1 / (1 + (-x).exp()),
        "tanh": lambda x: ((2 * x).exp() - 1) / ((2 * x).exp() + 1),
        "normal_upper_tail": _upper_tail,
    }


def _inputs(name: str) -> np.ndarray:
    rng = np.random.default_rng(0)
    if name == "log":
        around_one = 1 + rng.normal(size=50) * 1e-9
        return np.concatenate([rng.uniform(0.5, 2, 300), around_one, 2.0 ** rng.uniform(-900, 900, 50)])
    if name == "log1p":
        return np.concatenate([rng.uniform(-0.9, 3, 300), np.exp(-rng.uniform(1, 60, 100))])
    if name == "normal_upper_tail":
        return np.concatenate([rng.uniform(0, 6, 150), rng.uniform(1, 1.5, 50), rng.uniform(6, 25, 10), [0.0, 1.25]])
    wide = (-700, 700) if name in ("exp", "expm1") else (-40, 40)
    return np.concatenate([rng.uniform(*wide, 200), rng.uniform(-2, 2, 200), rng.normal(size=50) * 1e-6])


@pytest.mark.parametrize("name", list(_references()))
def test_relative_accuracy(name):
    x = _inputs(name)
    values = getattr(exact_math, name)(x)
    with decimal.localcontext(_PRECISE):
        exact = [_references()[name](Decimal(float(v))) for v in x]
        errors = [float(abs(Decimal(float(v)) / e - 1)) for v, e in zip(values, exact, strict=True)]
    assert max(errors) < (2e-15 if name == "normal_upper_tail" else 4e-16)


@pytest.mark.parametrize("scale", [0.1, 1.0, 30.0, 256.0])
def test_normal_interval(scale):
    k = np.unique(np.round(np.linspace(0, 6 * scale + 1, 25)))
    low, high = (k - 0.5) / scale, (k + 0.5) / scale
    values = exact_math.normal_interval(low, high)
    for v, a, b in zip(values, low, high, strict=True):
        with decimal.localcontext(_PRECISE):
            near, far = _upper_tail(Decimal(abs(float(a)))), _upper_tail(Decimal(float(b)))
            exact = near - far if a > 0 else 1 - near - far
            allowed = 3e-15 * float(near) if a > 0 else 4e-16
            assert float(abs(Decimal(float(v)) - exact)) < allowed
    np.testing.assert_array_equal(exact_math.normal_interval(-high, -low), values)


def test_intervals_and_tails_sum_to_one():
    edges = np.linspace(-6.3, 7.1, 200)
    total = exact_math.normal_interval(edges[:-1], edges[1:]).sum()
    total += exact_math.normal_upper_tail(6.3) + exact_math.normal_upper_tail(7.1)
    assert abs(total - 1) < 1e-14


def test_special_values():
    inf, nan = np.inf, np.nan
    np.testing.assert_array_equal(exact_math.exp(np.array([0, inf, -inf, 710, -746, nan])), [1, inf, 0, inf, 0, nan])
    np.testing.assert_array_equal(exact_math.log(np.array([1, 0, inf, -1, nan])), [0, -inf, inf, nan, nan])
    ends = np.array([709.78, -745.0, -720.0])
    np.testing.assert_allclose(exact_math.exp(ends), np.exp(ends), rtol=1e-13)
    np.testing.assert_array_equal(exact_math.tanh(np.array([0.0, 50, -50])), [0, 1, -1])
    np.testing.assert_array_equal(exact_math.sigmoid(np.array([0.0, 800, -800])), [0.5, 1, 0])
    np.testing.assert_array_equal(exact_math.softplus(np.array([800.0, -800])), [800, 0])
    assert exact_math.normal_upper_tail(0.0) == 0.5
    assert exact_math.normal_upper_tail(60.0) == 0.0


def test_scalars_and_shapes():
    for name in _references():
        function = getattr(exact_math, name)
        assert function(0.5).shape == ()
        grid = function(np.full((2, 3), 0.5))
        assert grid.shape == (2, 3) and grid.dtype == np.float64
        assert np.all(grid == function(0.5))


def test_bits_do_not_depend_on_the_cpu(check_same_on_every_cpu):
    check_same_on_every_cpu(_SCRIPT)
