"""The codec end to end: symbols survive the round trip, at every size, with random and with trained weights."""

from __future__ import annotations

import threading

import jax.numpy as jnp
import numpy as np
import pytest

import cdc_jax
from cdc_jax.codec.encoding import encode_latents
from cdc_jax.errors import BitstreamError, BundleError, ConfigError, ImageError, ModelMismatchError
from cdc_jax.io import cdc_file
from tests.io.image_files import NOT_IMAGES

SIZES = [(1, 1), (17, 33), (65, 127), (513, 300)]


def smooth(height: int, width: int) -> np.ndarray:
    """Slow color gradients."""
    rows, columns = np.mgrid[:height, :width]
    waves = np.stack([np.sin(rows / 40), np.cos(columns / 30), np.sin((rows + columns) / 50)], axis=-1)
    return (127.5 + 127.5 * waves).astype(np.uint8)


def noise(height: int, width: int) -> np.ndarray:
    """Uniform noise."""
    return np.random.default_rng(0).integers(0, 256, (height, width, 3), dtype=np.uint8)


def black(height: int, width: int) -> np.ndarray:
    """Nothing."""
    return np.zeros((height, width, 3), np.uint8)


def expected_symbols(codec, image):
    """round(z − m) and round(y − μ), with latents from the float model and μ from the integer networks."""
    padded = np.pad(image, ((0, -image.shape[0] % 64), (0, -image.shape[1] % 64), (0, 0)), mode="edge")
    y, z = (np.asarray(latent[0]) for latent in encode_latents(codec.config, codec.params, padded[None]))
    z_symbols = np.rint(z - codec.params["compressor.prior.medians"]).astype(np.int32)
    mean, _ = codec.coding.hyper_decoder.decode(z_symbols)
    return z_symbols, np.rint(y - mean).astype(np.int32)


@pytest.mark.parametrize("kind", ["random_codec", "trained_codec"])
@pytest.mark.parametrize("make", [smooth, noise, black])
def test_symbols_read_are_symbols_written(request, kind, make):
    codec = request.getfixturevalue(kind)
    for height, width in SIZES:
        image = make(height, width)
        data = codec.compress(image)
        z, y = codec.read_symbols(data)
        expected_z, expected_y = expected_symbols(codec, image)
        np.testing.assert_array_equal(z, expected_z)
        np.testing.assert_array_equal(y, expected_y)
        assert z.dtype == y.dtype == np.int32
        assert y.shape == (4 * z.shape[0], 4 * z.shape[1], 4 * codec.config.width)


def test_size_of_decoded_images(random_codec):
    for height, width in SIZES[:3]:
        decoded = random_codec.decompress(random_codec.compress(smooth(height, width)))
        assert decoded.shape == (height, width, 3) and decoded.dtype == np.uint8


def test_file_size_equals_the_model_s_rate(trained_codec, photograph):
    for image in (photograph, photograph[:256, :256], smooth(512, 384)):
        data = trained_codec.compress(image)
        z, y = trained_codec.read_symbols(data)
        scale_index = trained_codec.coding.hyper_decoder.decode(z)[1]
        coded_bits = sum(trained_codec.coder.part_bits(z, y, scale_index))  # −log₂ p under the file's tables
        assert coded_bits <= 8 * len(data) <= coded_bits + 24 * 8
        model_bits = trained_codec.estimate_bits(image)
        assert coded_bits <= 1.005 * model_bits
        # A very unlikely symbol counts 30 bits in the estimate (p ≥ 1e-9), but takes fewer bits as an escape.
        assert coded_bits >= 0.85 * model_bits


def test_the_header_is_small(random_codec):
    data = random_codec.compress(smooth(65, 127))
    assert len(data) - len(cdc_file.unpack(data).stream) <= 20


def test_same_seed_same_image(random_codec):
    data = random_codec.compress(smooth(64, 64))
    first = random_codec.decompress(data, seed=7)
    np.testing.assert_array_equal(first, random_codec.decompress(data, seed=7))
    assert (first != random_codec.decompress(data, seed=8)).any()


def test_without_noise_the_seed_does_not_matter(random_codec):
    data = random_codec.compress(smooth(64, 64))
    np.testing.assert_array_equal(
        random_codec.decompress(data, seed=1, gamma=0), random_codec.decompress(data, seed=2, gamma=0)
    )


def test_eta_adds_noise(random_codec):
    data = random_codec.compress(smooth(64, 64))
    plain = random_codec.decompress(data, gamma=0)
    noisy = [random_codec.decompress(data, gamma=0, eta=1.0, seed=seed) for seed in (0, 0, 1)]
    assert (plain != noisy[0]).any()
    np.testing.assert_array_equal(noisy[0], noisy[1])
    assert (noisy[0] != noisy[2]).any()


def test_batches_equal_single_calls_and_report_progress(random_codec):
    images, calls = [smooth(64, 64), noise(1, 70), black(65, 3)], []
    files = random_codec.compress_batch(images, progress=lambda done, total: calls.append((done, total)))
    assert files == [random_codec.compress(image) for image in images]
    assert calls == [(1, 3), (2, 3), (3, 3)]
    for image, data in zip(random_codec.decompress_batch(files, seed=3), files, strict=True):
        np.testing.assert_array_equal(image, random_codec.decompress(data, seed=3))


def test_usable_from_threads(random_codec):
    image, results = smooth(100, 80), {}

    def work(name):
        results[name] = random_codec.decompress(random_codec.compress(image))

    threads = [threading.Thread(target=work, args=(i,)) for i in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(results) == 4
    for image in results.values():
        np.testing.assert_array_equal(image, results[0])


def test_a_trained_model_is_better_than_a_random_one(trained_codec, random_codec, photograph):
    from cdc_jax.metrics.distortion import psnr_db

    trained = psnr_db(photograph, trained_codec.decompress(trained_codec.compress(photograph), steps=1))
    random = psnr_db(photograph, random_codec.decompress(random_codec.compress(photograph), steps=1))
    assert trained > random + 3


@pytest.mark.parametrize("image", [*NOT_IMAGES, "photo.png"])
def test_other_objects_than_images_are_refused(random_codec, image):
    with pytest.raises(ImageError):
        random_codec.compress(image)
    with pytest.raises(ImageError):
        random_codec.estimate_bits(image)


def test_invalid_settings_are_refused(random_codec):
    data = random_codec.compress(black(1, 1))
    for settings in ({"steps": 0}, {"steps": 9999}, {"seed": -1}, {"seed": 2**32}, {"gamma": -1.0}, {"eta": 2.0}):
        with pytest.raises(ConfigError):
            random_codec.decompress(data, **settings)


@pytest.mark.slow
def test_bfloat16_changes_pixels_slightly_and_files_not_at_all(trained_bundle, trained_codec, photograph):
    from cdc_jax.metrics.distortion import psnr_db

    half = cdc_jax.load_codec(trained_bundle, compute_type="bfloat16")
    image = photograph[:64, :64]
    data = trained_codec.compress(image)
    assert half.compress(image) == data
    exact, actual = trained_codec.decompress(data, steps=1), half.decompress(data, steps=1)
    assert (exact != actual).any() and psnr_db(exact, actual) > 35
    with pytest.raises(ConfigError, match="float64"):
        cdc_jax.load_codec(trained_bundle, compute_type="float64")


def test_max_pixels(random_bundle):
    small = cdc_jax.load_codec(random_bundle, max_pixels=64 * 64)
    large = cdc_jax.load_codec(random_bundle)
    small.compress(black(64, 64))
    with pytest.raises(ImageError, match="limit"):
        small.compress(black(65, 64))
    with pytest.raises(BitstreamError, match="limit"):
        small.read_symbols(large.compress(black(65, 64)))


def test_another_model_is_refused(random_codec, trained_codec):
    data = random_codec.compress(black(8, 8))
    with pytest.raises(ModelMismatchError, match=random_codec.fingerprint.hex()):
        trained_codec.decompress(data)


def test_weights_that_are_not_finite_are_refused(random_bundle, tmp_path):
    from cdc_jax.codec.bundle import load_bundle
    from cdc_jax.codec.codec import Codec

    bundle = load_bundle(random_bundle)
    name = "compressor.encoder.downs.3.bias"
    bundle.params[name] = jnp.full_like(bundle.params[name], jnp.nan)
    with pytest.raises(BundleError, match="not finite"):
        Codec(bundle).compress(black(64, 64))
