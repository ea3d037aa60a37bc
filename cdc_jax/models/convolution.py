"""Convolutions of NHWC maps with HWIO kernels, with gradients that are also fast on CPUs.

XLA's gradients of convolutions are slow on CPUs: those with stride 2 have no optimized kernel there, and the others get
an unfavorable memory layout. On CPUs, we compute the same sums as plain convolutions instead:

  * gradient of the input: a convolution of the output's gradient with the flipped kernel; for stride 2 a transposed
    one, whose even and odd rows and columns (phases) are convolutions at the lower resolution;
  * gradient of a kernel of stride 2: that of a convolution of stride 1 over the input's four phases;
  * gradient of a kernel: one matrix product of all its taps, see `_kernel_gradient_plain`.

Other platforms use XLA's gradients. Transposed convolutions also use phases only on CPUs: a TPU skips the products with
zeros, and for v5e its compiler estimates about half the time and memory traffic without phases.
"""

from __future__ import annotations

import functools

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

Padding = tuple[tuple[int, int], tuple[int, int]]
Phases = tuple[Float[Array, "t t i 2*o"], Float[Array, "t t i 2*o"]]
# A kernel's gradient is summed in parts of so many positions if there are more than so many in all (measured).
_POSITIONS_PER_PART, _POSITIONS_AT_ONCE = 1024, 4096
_LAYOUT = ("NHWC", "HWIO", "NHWC")


@functools.partial(jax.custom_vjp, nondiff_argnums=(2, 3, 4, 5))
def convolve(
    x: Float[Array, "b h w i"],
    kernel: Float[Array, "k l i o"],
    padding: Padding,
    stride: int,
    precision: str | None,
    dilation: int = 1,
) -> Float[Array, "b _ _ o"]:
    """Cross-correlates x, padded with zeros, with a kernel.

    Args:
      x: maps, float32 or bfloat16.
      kernel: the kernel, of the same type.
      padding: numbers of zeros ((above, below), (left, right)).
      stride: the stride of both axes. On CPUs, 1 and halving even sizes have the fast gradients.
      precision: precision of the products, as in `jax.lax`.
      dilation: spacing of x's samples: dilation − 1 zeros are inserted between them.

    Returns:
      The output in float32; float64 for inputs in float64.
    """
    return _convolution(x, kernel, padding, stride, precision, dilation)


def _convolution(x, kernel, padding, stride, precision, dilation=1):
    return jax.lax.conv_general_dilated(
        x,
        kernel,
        (stride, stride),
        padding,
        lhs_dilation=(dilation, dilation),
        dimension_numbers=_LAYOUT,
        precision=precision,
        preferred_element_type=jnp.promote_types(x.dtype, jnp.float32),  # sum half-precision products in float32
    )


def _forward(x, kernel, *options):
    return convolve(x, kernel, *options), (x, kernel)


def _backward(padding, stride, precision, dilation, saved, gradient):
    x, kernel = saved
    options = (padding, stride, precision)

    def cpu(x, kernel, gradient):
        if dilation != 1 or (stride != 1 and not _is_halving(x, kernel, padding, stride)):
            return standard(x, kernel, gradient)
        return _input_gradient(x, kernel, gradient, *options), _kernel_gradient(x, kernel, gradient, *options)

    def standard(x, kernel, gradient):
        return jax.vjp(lambda x, kernel: _convolution(x, kernel, *options, dilation), x, kernel)[1](gradient)

    with jax.named_scope("convolution_gradient"):
        wide = (v.astype(gradient.dtype) for v in (x, kernel, gradient))
        of_x, of_kernel = jax.lax.platform_dependent(*wide, cpu=cpu, default=standard)
    return of_x.astype(x.dtype), of_kernel.astype(kernel.dtype)


convolve.defvjp(_forward, _backward)


def _is_halving(x, kernel, padding, stride) -> bool:
    rows, columns = kernel.shape[:2]
    even = x.shape[1] % 2 == x.shape[2] % 2 == 0
    return stride == 2 and even and rows == columns and rows in (3, 5) and padding == ((rows // 2,) * 2,) * 2


def _input_gradient(x, kernel, gradient, padding, stride, precision):
    flipped = kernel[::-1, ::-1].swapaxes(2, 3)
    if stride == 1:
        return _convolution(gradient, flipped, _opposite(kernel.shape, padding), 1, precision)
    front = 2 - kernel.shape[0] // 2  # the first tap of `_from_phases` is two samples before
    kernel = jnp.pad(flipped, ((front, 0), (front, 0), (0, 0), (0, 0)))
    return _from_phases(gradient, transposed_phases(kernel), precision)


def _kernel_gradient(x, kernel, gradient, padding, stride, precision):
    if stride == 1:
        return _kernel_gradient_plain(x, kernel.shape, gradient, padding, precision)
    size, _, inputs, outputs = kernel.shape
    batch, height, width, _ = x.shape
    front = size // 2 % 2  # add a zero tap in front if the first tap is aligned with odd samples
    taps, before = (size + front) // 2 + (size + front) % 2, (size // 2 + front) // 2
    phases = x.reshape(batch, height // 2, 2, width // 2, 2, inputs).transpose(0, 1, 3, 2, 4, 5)
    result = _kernel_gradient_plain(
        phases.reshape(batch, height // 2, width // 2, 4 * inputs),
        (taps, taps, 4 * inputs, outputs),
        gradient,
        ((before, taps - 1 - before),) * 2,
        precision,
    )
    result = result.reshape(taps, taps, 2, 2, inputs, outputs).transpose(0, 2, 1, 3, 4, 5)
    return result.reshape(2 * taps, 2 * taps, inputs, outputs)[front : front + size, front : front + size]


def _kernel_gradient_plain(x, shape, gradient, padding, precision):
    """The sum over all positions of x, shifted by columns, times the gradient, shifted by rows.

    Concatenated over the shifts, both are matrices with a row per position, and their product contains all taps. They
    are made and multiplied in parts that fit into a core's cache.
    """
    rows, columns, inputs, outputs = shape
    batch, height = x.shape[:2]
    width = gradient.shape[2]
    x = jnp.pad(x, ((0, 0), (0, 0), padding[1], (0, 0)))
    gradient = jnp.pad(gradient, ((0, 0), _opposite(shape, padding)[0], (0, 0), (0, 0)))

    def product(x, gradient):
        height = x.shape[1]
        x = jnp.concatenate([x[:, :, column : column + width] for column in range(columns)], axis=-1)
        shifts = [gradient[:, rows - 1 - row :][:, :height] for row in range(rows)]
        gradient = jnp.concatenate(shifts, axis=-1)
        contracted = (((0, 1, 2), (0, 1, 2)), ((), ()))
        return jax.lax.dot_general(x, gradient, contracted, precision=precision)

    if rows == columns == 1 or batch * height * width <= _POSITIONS_AT_ONCE:
        total = product(x, gradient)
    else:
        sizes = (n for n in range(1, height + 1) if height % n == 0)
        part = max(n for n in sizes if n == 1 or n * width <= _POSITIONS_PER_PART)

        def add(index, total):
            image, top = index // (height // part), index % (height // part) * part
            start = (image, top, 0, 0)
            some = jax.lax.dynamic_slice(x, start, (1, part, *x.shape[2:]))
            shifted = jax.lax.dynamic_slice(gradient, start, (1, part + rows - 1, *gradient.shape[2:]))
            return total + product(some, shifted)

        zeros = jnp.zeros((columns * inputs, rows * outputs), x.dtype)
        total = jax.lax.fori_loop(0, batch * height // part, add, zeros)
    return total.reshape(columns, inputs, rows, outputs).transpose(2, 0, 1, 3)


def _opposite(shape, padding) -> Padding:
    """The padding of the convolution that maps the output's gradient to the input's."""
    return tuple((k - 1 - before, k - 1 - after) for k, (before, after) in zip(shape[:2], padding, strict=True))


def transposed(
    x: Float[Array, "b h w i"],
    kernel: Float[Array, "k k i o"],
    phases: Phases,
    precision: str | None,
) -> Float[Array, "b 2*h 2*w o"]:
    """Transposed convolution of stride 2, 4×4 (padding 1) or 5×5 (padding 2, output padding 1), without a bias.

    By definition, it is the cross-correlation of the kernel with x after inserting a zero between its samples, 2 zeros
    before the first, and 2 (4×4) or 3 (5×5) after the last.

    Args:
      x: maps, float32 or bfloat16.
      kernel: the kernel, of the same type.
      phases: `transposed_phases(kernel)`, which CPUs use instead.
      precision: precision of the products, as in `jax.lax`.
    """

    def by_definition(x, kernel, phases):
        return convolve(x, kernel, ((2, 2 + kernel.shape[0] % 2),) * 2, 1, precision, 2)

    def by_phases(x, kernel, phases):
        return _from_phases(x, phases, precision)

    return jax.lax.platform_dependent(x, kernel, phases, cpu=by_phases, default=by_definition)


def transposed_phases(kernel: Float[Array, "k k i o"]) -> Phases:
    """Splits a transposed convolution's kernel in two: one for even and one for odd output rows.

    Each computes two output columns at once, the odd one in the first half of the channels: see `_from_phases`.
    """
    odd = kernel.shape[0] % 2
    kernel = jnp.pad(kernel, ((0, odd), (0, odd), (0, 0), (0, 0)))
    taps, inputs, outputs = kernel.shape[0] // 2, *kernel.shape[2:]
    phases = kernel.reshape(taps, 2, taps, 2, inputs, outputs)[:, :, :, ::-1].swapaxes(3, 4)
    even, odd = (phases[:, row].reshape(taps, taps, inputs, 2 * outputs) for row in (0, 1))
    return even, odd


def _from_phases(x, phases: Phases, precision: str | None):
    """The transposed convolution, computed with its phases at x's resolution.

    Position q in a row of the convolution holds output columns 2q − 1 and 2q, next to each other in memory. A reshape
    turns them into columns; the first and the last column are discarded.
    """
    batch, height, width, _ = x.shape
    taps, outputs = phases[0].shape[0], phases[0].shape[3] // 2
    columns = (1, taps - 1)
    rows = [
        convolve(x, kernel, ((1 - row, taps - 2 + row), columns), 1, precision).reshape(
            batch, height, 1, 2 * (width + 1), outputs
        )[:, :, :, 1:-1]
        for row, kernel in enumerate(phases)
    ]
    return jnp.concatenate(rows, axis=2).reshape(batch, 2 * height, 2 * width, outputs)
