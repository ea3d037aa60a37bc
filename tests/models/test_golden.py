"""Both models against the original program: every intermediate, the decoded images, the loss and its gradient."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from cdc_jax.codec.import_torch import torch_modules, torch_name
from cdc_jax.diffusion.process import NoiseLevel, add_noise, diffusion_loss
from cdc_jax.diffusion.sampler import ddim_sample, sampling_grid
from cdc_jax.diffusion.schedule import schedule_for
from cdc_jax.models.params import merge
from tests.helpers.golden import relative_error


@pytest.fixture(scope="module")
def compressed(golden):
    return jax.jit(lambda params, image: merge(golden.config, params).compress(image))(golden.params, golden["image"])


@pytest.fixture(scope="module")
def denoise(golden):
    def run(params, x, time, context):
        return merge(golden.config, params).unet(x, time, context)

    return jax.jit(run)


def test_every_intermediate_of_the_compressor(golden, compressed):
    found = {
        "latent": compressed.y,
        "hyper_latent": compressed.z,
        "mean": compressed.mean,
        "scale": compressed.scale,
        "q_latent": compressed.y_hat,
        "q_hyper_latent": compressed.z_hat,
        **{f"context_{i}": context for i, context in enumerate(compressed.context.maps)},
    }
    errors = {name: relative_error(value, golden[name]) for name, value in found.items()}
    assert max(errors.values()) < 1e-5, errors


def test_rate(golden, compressed):
    pixels = np.prod(golden["image"].shape[1:3])
    np.testing.assert_allclose(np.asarray(compressed.rate_bits) / pixels, golden["bpp_eval"], rtol=1e-5)


def test_likelihood_of_z(golden, compressed):
    likelihood = merge(golden.config, golden.params).compressor.prior.likelihood(compressed.z_hat)
    np.testing.assert_allclose(likelihood, golden["hyper_likelihood"], rtol=1e-4, atol=1e-7)


def test_unet_at_three_times(golden, compressed, denoise):
    for name in golden.names("unet_"):
        time = jnp.full((2,), float(name.removeprefix("unet_")), jnp.float32)
        output = denoise(golden.params, golden["noise"], time, compressed.context)
        assert relative_error(output, golden[name]) < 1e-5, name


def test_decoded_images(golden, compressed):
    schedule = schedule_for(golden.config)
    names = golden.names("decoded_")
    assert len(names) >= 4

    @jax.jit
    def decode(params, context, start, inputs):
        def network(x, time):
            return merge(golden.config, params).unet(x, time, context)

        return ddim_sample(network, golden.config.prediction, start, inputs)

    for name in names:
        _, steps, gamma = name.split("_")
        start = np.float32(gamma.removeprefix("gamma")) * golden["noise"]
        inputs = sampling_grid(schedule, golden.config.prediction, int(steps))
        decoded = decode(golden.params, compressed.context, start, inputs)
        assert relative_error(decoded, golden[name]) < 1e-4, name


def test_training_loss_and_every_gradient(golden):
    schedule = schedule_for(golden.config)
    alpha_bar = jnp.asarray(schedule.alpha_bar[golden["train_t"]])
    time = jnp.asarray(golden["train_t"] / schedule.num_timesteps, jnp.float32)
    beta = {"x": 0.0032, "epsilon": 0.9}[golden.variant]
    image, noise = golden["image"], golden["noise"]

    @jax.jit
    def gradients(params):
        def total(params):
            model = merge(golden.config, params)
            compressed = model.compress(image, (golden["train_noise_latent"], golden["train_noise_hyper"]))
            noisy = add_noise(image, noise, NoiseLevel.of(alpha_bar).per_image())
            output = model.unet(noisy, time, compressed.context)
            bpp = jnp.mean(compressed.rate_bits) / (image.shape[1] * image.shape[2])
            loss = beta * bpp + diffusion_loss(golden.config.prediction, output, image, noise, alpha_bar)
            prior = model.compressor.prior.median_loss()
            return loss + prior, (loss, prior)

        return jax.value_and_grad(total, has_aux=True)(params)

    (_, (loss, prior)), found = gradients(golden.params)
    np.testing.assert_allclose(loss, golden["train_loss"], rtol=1e-6)
    np.testing.assert_allclose(prior, golden["train_prior_aux_loss"], rtol=1e-6)

    modules = torch_modules(golden.config.prediction)
    theirs = {name: torch_name(name, modules) for name in found}
    assert sorted(theirs.values()) == sorted(n.removeprefix("grad_norm/") for n in golden.names("grad_norm/"))
    for name, gradient in found.items():
        reference = golden.raw(f"grad_norm/{theirs[name]}")
        np.testing.assert_allclose(np.linalg.norm(gradient), reference, rtol=1e-3, atol=1e-12, err_msg=name)

    kernel = "unet.final_conv.kernel"
    reference = golden.raw(f"grad/{theirs[kernel]}").transpose(2, 3, 1, 0)
    assert relative_error(found[kernel], reference) < 1e-4
    transposed = "compressor.hyper_decoder.convs.0.kernel"
    reference = golden.raw(f"grad/{theirs[transposed]}")[:, :, ::-1, ::-1].transpose(2, 3, 0, 1)
    assert relative_error(found[transposed], reference) < 1e-4
