"""Step 1 of `make conformance`, run with JAX: writes our entropy model's results for given parameters to one .npz.

    python tests/conformance/our_side.py OUT.npz [BUNDLE …]

Step 2 (`compare_*.py`, run with tensorflow-compression, where JAX cannot be installed) sets the same parameters there
and compares. The cases:

  initial   a prior as training begins with, 32 channels
  random    every parameter drawn, densities from 0.3 to 30 wide, medians anywhere, 24 channels
  trained   a prior fitted by our training side to Laplace samples from 0.1 to 30 wide, off center; 32 and 256 channels,
            the latter those of the released models
  compact   a prior as training begins with, and a variable-rate model: 48 channels of y, gains, a checkerboard
  a bundle  its own weights, and the symbols of a photograph instead of drawn ones

Arrays are named `CASE/ARRAY`, c channels of z:

  weights_k, biases_k, gains_k, medians   the prior's parameters, as in `tables.factorized_tables`
  median_loss                             float32 []
  value, logit, likelihood                float32 [n, c]: where the prior is evaluated, with what result
  z_low, z_offsets, z_counts              its tables, as in `tables.Tables`
  symbol_z, symbol_y, scale_index         P images of h x w samples of z: `_0` to `_P-1`
  z_bits, y_bits                          float64 [P], the float likelihoods' −log₂
  stream_bytes, control_bytes             int64 [P]: our stream, and one with scale indices that are 8 too high

and once, under `gaussian/`: `value`, `mean`, `scale`, `likelihood` (float32 [n]), `scales` (float64 [256]) and the
tables `y_low`, `y_offsets`, `y_counts`.
"""

import argparse
import io
from collections.abc import Callable
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import optax
from compact_networks import compact_networks
from flax import nnx

from cdc_jax.codec.bundle import load_bundle
from cdc_jax.codec.codec import Codec
from cdc_jax.entropy.coder import EntropyCoder
from cdc_jax.entropy.coding_model import CodingModel
from cdc_jax.entropy.factorized import FILTERS, FactorizedPrior
from cdc_jax.entropy.gaussian import gaussian_likelihood
from cdc_jax.entropy.latents import Pass
from cdc_jax.entropy.quantize import likelihood_bits
from cdc_jax.entropy.tables import NUM_SCALES, Tables, draw_symbols, gaussian_tables, scale_table
from cdc_jax.io import cdc_file
from cdc_jax.io.files import write_atomically
from cdc_jax.models.config import STRIDE, ModelConfig
from cdc_jax.models.initialization import initial_weights
from cdc_jax.models.params import prior_arrays

Z_SIZES = ((1, 1), (4, 6), (8, 12))  # images of 64x64, 256x384 and 512x768
CONTROL_STEPS = 8  # scale indices: scales a quarter too wide
COMPACT_LEVEL = 9536  # quality 37.25
FIT_STEPS = 800
FIT_BATCH = 64


def initial_prior(width: int, seed: int) -> dict:
    return prior_arrays(initial_weights(ModelConfig(width=width), seed))


def random_prior(channels: int, seed: int) -> dict:
    random = np.random.default_rng(seed)
    spread = 10 ** random.uniform(-0.5, 1.5, channels)
    prior = {"weights": [], "biases": [], "gains": [], "medians": random.normal(0, 2, channels)}
    for k, (fan_in, fan_out) in enumerate(zip(FILTERS[:-1], FILTERS[1:], strict=True)):
        start = np.log(np.expm1(spread[:, None, None] ** -0.25 / fan_out))
        prior["weights"].append(start + random.normal(0, 0.2, (channels, fan_in, fan_out)))
        prior["biases"].append(random.uniform(-1, 1, (channels, fan_out)))
        if k < 3:
            prior["gains"].append(random.normal(0, 0.7, (channels, fan_out)))
    return jax.tree.map(lambda array: array.astype(np.float32), prior)


def _module(prior: dict) -> FactorizedPrior:
    module = FactorizedPrior(len(prior["medians"]))
    for kind in ("weights", "biases", "gains"):
        for k, array in enumerate(prior[kind]):
            getattr(module, kind)[k][...] = jnp.asarray(array)
    module.medians[...] = jnp.asarray(prior["medians"])
    return module


class LaplaceSource:
    """Samples of z with a separate width and center for each channel."""

    def __init__(self, channels: int, seed: int):
        self.random = np.random.default_rng(seed)
        self.width = 10 ** self.random.uniform(-1, 1.5, channels)
        self.center = self.random.uniform(-3, 3, channels)

    def draw(self, *shape: int) -> np.ndarray:
        """Float32 [*shape, c]."""
        samples = self.random.laplace(self.center, self.width, (*shape, len(self.width)))
        return samples.astype(np.float32)


def _minimize(loss: Callable, state: nnx.State, learning_rate: float) -> nnx.State:
    """Minimizes loss(state, key) by Adam with a learning rate that decays to 0."""
    optimizer = optax.adam(optax.cosine_decay_schedule(learning_rate, FIT_STEPS))

    @jax.jit
    def fit(state):
        def step(carry, key):
            state, moments = carry
            updates, moments = optimizer.update(jax.grad(loss)(state, key), moments)
            return (optax.apply_updates(state, updates), moments), None

        keys = jax.random.split(jax.random.key(1), FIT_STEPS)
        return jax.lax.scan(step, (state, optimizer.init(state)), keys)[0][0]

    return fit(state)


def trained_prior(source: LaplaceSource) -> dict:
    """Fits the initial prior to the source by the rate of noisy samples, and then its medians by their loss."""
    start = initial_prior(len(source.width) // 4, seed=0)
    graph, state = nnx.split(_module(start), nnx.Param)
    samples = jnp.asarray(source.draw(1 << 14))

    def rate(state, key):
        batch = samples[jax.random.randint(key, (FIT_BATCH,), 0, len(samples))]
        noisy = batch + jax.random.uniform(key, batch.shape, minval=-0.5, maxval=0.5)
        return jnp.mean(likelihood_bits(nnx.merge(graph, state).likelihood(noisy[:, None, None])))

    def median_loss(state, key):
        return nnx.merge(graph, state).median_loss()

    state = _minimize(median_loss, _minimize(rate, state, 0.05), 0.05)
    module = nnx.merge(graph, state)
    arrays = {kind: [np.asarray(p[...]) for p in getattr(module, kind)] for kind in ("weights", "biases", "gains")}
    return {**arrays, "medians": np.asarray(module.medians[...])}


def hyper_decoder(z_spread: np.ndarray, random: np.random.Generator) -> list[tuple[np.ndarray, np.ndarray]]:
    """Layers whose scales are between 0.05 and 30, depending on the channel, and vary by a third within a channel."""
    channels = len(z_spread)

    def kernel(side: int, taps: float, outputs: int) -> np.ndarray:
        return random.normal(0, np.sqrt(2 / (taps * channels)), (side, side, channels, outputs))

    scale = 10 ** random.uniform(-1.3, 1.5, channels)
    first, second, last = kernel(5, 6.25, channels), kernel(5, 6.25, channels), kernel(3, 9, 2 * channels)
    first /= z_spread[:, None]
    last[..., channels:] *= scale / 3
    bias = np.concatenate([random.normal(0, 1, channels), scale])
    zero = np.zeros(channels)
    layers = [(first, zero), (second, zero), (last, bias)]
    return [(kernel.astype(np.float32), bias.astype(np.float32)) for kernel, bias in layers]


def table_arrays(letter: str, tables: Tables) -> dict:
    return {f"{letter}_{field}": getattr(tables, field) for field in ("low", "offsets", "counts")}


def prior_case(prior: dict, tables: Tables, random: np.random.Generator) -> dict:
    """Parameters, with logits and likelihoods at and between the symbols of the tables."""
    module = _module(prior)
    arrays = {f"{kind}_{k}": a for kind in ("weights", "biases", "gains") for k, a in enumerate(prior[kind])}
    position = np.concatenate([np.linspace(0, 1, 401), random.uniform(-0.1, 1.1, 200)])[:, None]
    symbol = tables.low + position * (tables.sizes - 1)
    symbol[:401] = np.rint(symbol[:401])
    value = (symbol + prior["medians"]).astype(np.float32)
    return {
        **arrays,
        "medians": prior["medians"],
        "median_loss": np.asarray(module.median_loss()),
        "value": value,
        "logit": np.asarray(jax.jit(lambda x: module.cdf_logits(x))(value)),
        "likelihood": np.asarray(jax.jit(lambda x: module.likelihood(x[:, None, None])[:, 0, 0])(value)),
        **table_arrays("z", tables),
    }


def stream_case(model: CodingModel, prior: dict, images: list[tuple[np.ndarray, np.ndarray, np.ndarray]]) -> dict:
    """Symbols, float rates and stream sizes of images (z, y, scale index)."""
    coder, module = EntropyCoder(model), _module(prior)
    arrays: dict = {name: [] for name in ("z_bits", "y_bits", "stream_bytes", "control_bytes")}
    for k, (z, y, scale_index) in enumerate(images):
        arrays |= {f"symbol_z_{k}": z, f"symbol_y_{k}": y, f"scale_index_{k}": scale_index}
        wrong_index = np.minimum(scale_index.astype(int) + CONTROL_STEPS, NUM_SCALES - 1).astype(np.uint8)
        scale = model.scales[scale_index].astype(np.float32)
        p_z = module.likelihood(z[None] + prior["medians"])
        p_y = gaussian_likelihood(jnp.asarray(y[None], jnp.float32), 0.0, jnp.asarray(scale[None]))
        arrays["z_bits"].append(float(likelihood_bits(p_z)[0]))
        arrays["y_bits"].append(float(likelihood_bits(p_y)[0]))
        arrays["stream_bytes"].append(len(coder.encode(z, y, scale_index)))
        arrays["control_bytes"].append(len(coder.encode(z, y, wrong_index)))
    return arrays


def drawn_case(prior: dict, seed: int, source: LaplaceSource | None = None) -> dict:
    """A case with a random hyper decoder. z comes from `source`, or from the prior's own tables."""
    random = np.random.default_rng([seed, 1])
    channels = len(prior["medians"])
    spread = source.width if source else np.full(channels, 10.0)
    model = CodingModel.build(prior, hyper_decoder(spread, random))
    images = []
    for height, width in Z_SIZES:
        if source:
            z = np.rint(source.draw(height, width) - prior["medians"]).astype(np.int32)
        else:
            z = draw_symbols(model.z_tables, height * width).reshape(height, width, channels)
        _, scale_index = model.hyper_decoder.decode(z)
        # True scales are anywhere between the table's.
        scale = model.scales[scale_index] * 2 ** random.uniform(-0.02, 0.02, scale_index.shape)
        y = np.rint(scale * random.standard_normal(scale.shape)).astype(np.int32)
        images.append((z, y, scale_index))
    return {**prior_case(prior, model.z_tables, random), **stream_case(model, prior, images)}


def compact_case(prior: dict, seed: int) -> dict:
    """A case of format 2 with random symbols y, which follow the networks' predictions pass by pass."""
    random = np.random.default_rng([seed, 1])
    model = CodingModel.build(prior, *compact_networks(len(prior["medians"]), random))
    images = []
    for height, width in Z_SIZES:
        z = draw_symbols(model.z_tables, height * width).reshape(height, width, model.channels)

        def draw(step: Pass) -> np.ndarray:
            scale = model.scales[step.scale_index] * 2 ** random.uniform(-0.02, 0.02, step.scale_index.shape)
            return np.rint(scale * random.standard_normal(scale.shape)).astype(np.int32)

        coded = model.latents.code(z, COMPACT_LEVEL, draw)
        images.append((z, coded.symbols, coded.scale_index))
    return {**prior_case(prior, model.z_tables, random), **stream_case(model, prior, images)}


def bundle_case(path: Path) -> dict:
    """A bundle's prior, and the symbols of photographs."""
    from skimage import data

    bundle = load_bundle(path)
    codec, coder, prior = Codec(bundle), EntropyCoder(bundle.coding), prior_arrays(bundle.params)
    images = []
    for photograph in (data.chelsea(), data.astronaut()):
        container = cdc_file.unpack(codec.compress(np.ascontiguousarray(photograph)))
        z_shape = (-(-container.height // STRIDE), -(-container.width // STRIDE), bundle.coding.channels)
        symbols = coder.decode(container.stream, z_shape, container.level)
        images.append((symbols.z, symbols.y, symbols.scale_index))
    random = np.random.default_rng(0)
    return {**prior_case(prior, bundle.coding.z_tables, random), **stream_case(bundle.coding, prior, images)}


def gaussian_case(seed: int, num_values: int = 1 << 17) -> dict:
    """p(y) from the mean to 6 scales away, for scales over the whole range."""
    random = np.random.default_rng(seed)
    scale = np.exp(random.uniform(np.log(0.1), np.log(256), num_values)).astype(np.float32)
    mean = random.normal(0, 10, num_values).astype(np.float32)
    value = (mean + random.uniform(-6, 6, num_values) * scale + random.uniform(-1, 1, num_values)).astype(np.float32)
    scales = scale_table()
    return {
        "value": value,
        "mean": mean,
        "scale": scale,
        "likelihood": np.asarray(jax.jit(gaussian_likelihood)(value, mean, scale)),
        "scales": scales,
        **table_arrays("y", gaussian_tables(scales)),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description="Writes our side of the comparison with tensorflow-compression.")
    parser.add_argument("out", type=Path, help="the .npz to write")
    parser.add_argument("bundles", type=Path, nargs="*", help="bundles to compare as well")
    arguments = parser.parse_args()
    narrow, wide = LaplaceSource(32, seed=3), LaplaceSource(256, seed=4)
    cases = {
        "gaussian": gaussian_case(seed=0),
        "initial-32": drawn_case(initial_prior(8, seed=1), seed=1),
        "random-24": drawn_case(random_prior(24, seed=2), seed=2),
        "trained-32": drawn_case(trained_prior(narrow), seed=3, source=narrow),
        "trained-256": drawn_case(trained_prior(wide), seed=4, source=wide),
        "compact-32": compact_case(initial_prior(8, seed=5), seed=5),
        **{f"bundle:{path}": bundle_case(path) for path in arguments.bundles},
    }
    content = io.BytesIO()
    np.savez(content, **{f"{case}/{name}": array for case, arrays in cases.items() for name, array in arrays.items()})
    arguments.out.parent.mkdir(parents=True, exist_ok=True)
    write_atomically(arguments.out, content.getvalue())


if __name__ == "__main__":
    main()
