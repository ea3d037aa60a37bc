"""tensorflow-compression with our parameters, the reference of `compare_*.py`."""

import re
from functools import cache

import numpy as np
import tensorflow as tf
import tensorflow_compression as tfc

LETTERS = {"matrix": "weights", "bias": "biases", "factor": "gains"}


def deep_factorized(arrays, dtype=tf.float64) -> tfc.NoisyDeepFactorized:
    """The prior of a case. TFC stores matrices as (channel, out, in), biases and factors as (channel, out, 1).

    Args:
      arrays: `weights_k`, `biases_k`, `gains_k`, as `our_side` writes them.
      dtype: of the computation.
    """
    channels = len(arrays["biases_0"])
    noisy = tfc.NoisyDeepFactorized(batch_shape=(channels,), num_filters=(3, 3, 3), dtype=dtype)
    for variable in noisy.base.variables:
        kind, k = re.search(r"/(matrix|bias|factor)_(\d):", variable.name).groups()
        array = arrays[f"{LETTERS[kind]}_{k}"]
        variable.assign(array.swapaxes(1, 2) if kind == "matrix" else array[:, :, None])
    return noisy


def cdf_logits(noisy: tfc.NoisyDeepFactorized, value: np.ndarray) -> np.ndarray:
    """Logit of the CDF F, log F − log(1 − F), at values [n, c]."""
    value = value.astype(noisy.dtype.as_numpy_dtype)
    return (noisy.base.log_cdf(value) - noisy.base.log_survival_function(value)).numpy()


def probability(distribution, value: np.ndarray) -> np.ndarray:
    """Probability of the unit bin around each value."""
    return distribution.prob(value.astype(distribution.dtype.as_numpy_dtype)).numpy()


def quantized_counts(pmf: np.ndarray, precision: int) -> np.ndarray:
    """TFC's integer counts of a distribution, with the sum 2^precision."""
    return np.diff(tfc.pmf_to_quantized_cdf(pmf.astype(np.float32), precision=precision).numpy())


class EntropyModels:
    """TFC's coders of z and y, with 256 scales, at one setting of its tables.

    Args:
      arrays: a case, for the prior and the medians that z is rounded around.
      scales: float64 [256].
      precision: bits of TFC's range coder, up to 16; 12 by default in TFC.
      tail_mass: what TFC leaves to its escape code, in all; 2^-8 by default in TFC.
    """

    def __init__(self, arrays, scales: np.ndarray, *, precision: int, tail_mass: float):
        settings = {"coding_rank": 3, "compression": True}
        table_settings = {"stateless": True, "range_coder_precision": precision, "tail_mass": tail_mass, **settings}
        prior, self.medians = deep_factorized(arrays, tf.float32), arrays["medians"]
        offset = {"quantization_offset": self.medians}

        @tf.function  # TFC searches for a table's ends by gradient descent, which takes minutes without tf.function
        def tables():
            model = tfc.ContinuousBatchedEntropyModel(prior, **offset, **table_settings)
            return model.cdf, model.cdf_offset

        cdf, cdf_offset = tables()
        self.z_model = tfc.ContinuousBatchedEntropyModel(
            prior_shape=self.medians.shape, cdf=cdf, cdf_offset=cdf_offset, **offset, **settings
        )
        self.y_model = _y_model(tuple(scales.tolist()), precision, tail_mass)

    def stream_bytes(self, z: np.ndarray, y: np.ndarray, scale_index: np.ndarray) -> int:
        """The size in bytes of TFC's two strings for these symbols. Raises AssertionError unless they round-trip."""
        z_value, y_value = (z + self.medians).astype(np.float32), y.astype(np.float32)
        index = scale_index.astype(np.int32)
        z_string, y_string = self.z_model.compress(z_value), self.y_model.compress(y_value, index)
        z_read = self.z_model.decompress(z_string, z.shape[:2]).numpy() - self.medians
        np.testing.assert_array_equal(np.rint(z_read), z)
        np.testing.assert_array_equal(self.y_model.decompress(y_string, index).numpy(), y)
        return len(z_string.numpy()) + len(y_string.numpy())


@cache
def _y_model(scales: tuple[float, ...], precision: int, tail_mass: float) -> tfc.LocationScaleIndexedEntropyModel:
    table = tf.constant(scales, tf.float32)

    def scale_of(index):
        return tf.gather(table, tf.cast(index, tf.int32))

    return tfc.LocationScaleIndexedEntropyModel(
        tfc.NoisyNormal,
        len(scales),
        scale_of,
        coding_rank=3,
        compression=True,
        range_coder_precision=precision,
        tail_mass=tail_mass,
    )
