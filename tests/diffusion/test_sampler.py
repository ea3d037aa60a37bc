"""DDIM sampling, and noise that depends on the position in the image only."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from cdc_jax.diffusion.sampler import ddim_sample, image_noise, sampling_grid
from cdc_jax.diffusion.schedule import cosine_schedule, linear_schedule


def test_noise_is_the_same_at_the_same_position_in_a_larger_image():
    small, large = image_noise(5, 0, 64, 128), image_noise(5, 0, 192, 256)
    np.testing.assert_array_equal(large[:64, :128], small)


def test_noise_differs_between_blocks_seeds_and_steps():
    base = np.asarray(image_noise(5, 0, 128, 128))
    blocks = [base[:64, :64], base[:64, 64:], base[64:, :64], base[64:, 64:]]
    others = [np.asarray(image_noise(seed, stream, 64, 64)) for seed, stream in ((6, 0), (5, 1), (2**32 - 1, 0))]
    distinct = {array.tobytes() for array in (*blocks, *others)}
    assert len(distinct) == 7


def test_noise_is_standard_normal():
    noise = np.asarray(image_noise(0, 0, 512, 512))
    assert abs(noise.mean()) < 0.01 and abs(noise.std() - 1) < 0.01
    assert noise.dtype == np.float32


def test_noise_golden_values():
    """The noise must never change: files decode to the same image with the same seed in every later version."""
    noise = np.asarray(image_noise(0, 0, 64, 64))[0, 0]
    np.testing.assert_allclose(noise, [-1.4629117250442505, -0.3517284691333771, -0.16139522194862366], rtol=1e-5)


@pytest.mark.parametrize("prediction", ["x", "epsilon"])
@pytest.mark.parametrize("steps", [1, 2, 7])
def test_an_oracle_is_decoded_to_its_image(prediction, steps):
    schedule = cosine_schedule(8193) if prediction == "x" else linear_schedule(20000)
    image = np.random.default_rng(0).uniform(-1, 1, (1, 64, 64, 3)).astype(np.float32)
    start = 0.8 * image_noise(0, 0, 64, 64)[None]
    inputs = sampling_grid(schedule, prediction, steps)
    levels = dict(zip(inputs.time.tolist(), inputs.alpha_bar.tolist(), strict=True))

    def oracle(x, time):
        if prediction == "x":
            return jnp.asarray(image)
        table = jnp.asarray(list(levels.items()), jnp.float32)
        alpha_bar = table[jnp.argmin(jnp.abs(table[:, 0] - time[0])), 1]
        return (x - jnp.sqrt(alpha_bar) * image) / jnp.sqrt(1 - alpha_bar)

    decoded = ddim_sample(oracle, prediction, start, inputs)
    np.testing.assert_allclose(decoded, image, atol=2e-3)


def test_time_inputs():
    x = sampling_grid(cosine_schedule(8193), "x", 5)
    np.testing.assert_allclose(x.time * 8193, [8192, 6144, 4096, 2048, 0], atol=1e-3)
    epsilon = sampling_grid(linear_schedule(20000), "epsilon", 5)
    np.testing.assert_allclose(epsilon.time, [0.8, 0.6, 0.4, 0.2, 0.0], rtol=1e-6)
    for schedule, prediction in ((cosine_schedule(8193), "x"), (linear_schedule(20000), "epsilon")):
        single = sampling_grid(schedule, prediction, 1)
        assert single.time[0] == np.float32((schedule.num_timesteps - 1) / schedule.num_timesteps)
        assert single.alpha_bar_next.tolist() == [1.0]


def test_ancestral_noise_keeps_the_level():
    """With η = 1 and a perfect denoiser, x has the noise level of each step."""
    schedule, spreads = cosine_schedule(8193), []
    image = jnp.zeros((1, 64, 64, 3))

    def oracle(x, time):
        jax.debug.callback(lambda value: spreads.append(float(value)), jnp.std(x))
        return image

    inputs = sampling_grid(schedule, "x", 6)
    start = image_noise(0, 0, 64, 64)[None]
    ddim_sample(oracle, "x", start, inputs, eta=1.0, step_noise=lambda k: image_noise(0, 1 + k, 64, 64)[None])
    jax.effects_barrier()
    np.testing.assert_allclose(spreads, np.sqrt(1 - inputs.alpha_bar), atol=0.03)


def test_one_scan_whatever_the_number_of_steps():
    inputs = sampling_grid(cosine_schedule(8193), "x", 9)
    program = jax.make_jaxpr(lambda start: ddim_sample(lambda x, time: x * 0.5, "x", start, inputs))(
        jnp.zeros((1, 64, 64, 3))
    )
    scans = [equation for equation in program.eqns if equation.primitive.name == "scan"]
    assert len(scans) == 1 and scans[0].params["length"] == 9
