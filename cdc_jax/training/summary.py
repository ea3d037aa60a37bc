"""The results of a finished run: a bundle, and the validation image, compressed to a file and decoded."""

from __future__ import annotations

import tempfile
from pathlib import Path

import ml_collections
import numpy as np
from etils import epath
from jaxtyping import UInt8
from PIL import Image as PILImage
from PIL import ImageDraw, ImageFont

from cdc_jax.codec.codec import load_codec
from cdc_jax.data.sources import validation_images
from cdc_jax.io.files import copy_tree, is_remote, write_atomically
from cdc_jax.io.images import Image, write_image
from cdc_jax.metrics.distortion import psnr_db
from cdc_jax.training.export import export_params
from cdc_jax.training.initialization import read_coding
from cdc_jax.training.metrics_writer import RunLog
from cdc_jax.training.step import TrainState, best_params

_CAPTION_HEIGHT = 28


def showcase(config: ml_collections.ConfigDict, state: TrainState, workdir: epath.PathLike) -> None:
    """Writes `bundle/`, and with a validation image `example.cdc`, `example.png`, `side_by_side.png`; prints metrics.

    Args:
      config: the settings of the finished run.
      state: its last state.
      workdir: its folder, local or in an object store.

    Raises:
      BundleError, ImageError, CdcError: something cannot be written.
    """
    log = RunLog(workdir).read()
    metrics = {name: value for line in log for name, value in line.items() if name.startswith("validation")}
    coding = read_coding(epath.Path(workdir)) if config.freeze_entropy else None
    if not is_remote(workdir):
        _write(config, state, Path(workdir), str(workdir), metrics, coding)
    else:
        with tempfile.TemporaryDirectory() as folder:
            _write(config, state, Path(folder), str(workdir), metrics, coding)
            copy_tree(epath.Path(folder), epath.Path(workdir))
    _print_progress(log)


def _write(config, state: TrainState, folder: Path, shown: str, metrics: dict[str, float], coding) -> None:
    """Writes into the local `folder`; messages call it `shown`."""
    params = {name: np.asarray(value) for name, value in best_params(state).items()}
    bundle = folder / "bundle"
    export_params(bundle, config, params, int(state.step), metrics=metrics, coding=coding, overwrite=True)
    print(f"bundle: {shown}/bundle")
    images = validation_images(config, 1)
    if not images:
        return

    name, image = images[0]
    codec = load_codec(bundle)
    data = codec.compress(image)
    write_atomically(folder / "example.cdc", data)
    bpp = 8 * len(data) / (image.shape[0] * image.shape[1])

    panels = [(f"original, {name}", image)]
    for steps in config.train.eval_steps:
        decoded = codec.decompress(data, steps=steps)
        psnr = psnr_db(image, decoded)
        panels.append((f"{steps} step{'s' if steps > 1 else ''}: {bpp:.3f} bpp, {psnr:.2f} dB", decoded))
        print(f"{name}: {len(data)} bytes, {bpp:.3f} bpp, {steps}-step decode {psnr:.2f} dB PSNR")
        if steps == config.model.decode_steps:
            write_image(folder / "example.png", decoded)
    if config.model.decode_steps not in config.train.eval_steps:
        write_image(folder / "example.png", codec.decompress(data))
    write_image(folder / "side_by_side.png", side_by_side(panels))
    print(f"look at: {shown}/side_by_side.png")


def side_by_side(panels: list[tuple[str, Image]]) -> UInt8[np.ndarray, "h2 w2 3"]:
    """Images of one size side by side, each under its caption."""
    height, width, _ = panels[0][1].shape
    sheet = PILImage.new("RGB", (width * len(panels), height + _CAPTION_HEIGHT), "white")
    draw = ImageDraw.Draw(sheet)
    for i, (caption, image) in enumerate(panels):
        draw.text((i * width + 8, 6), caption, fill="black", font=ImageFont.load_default(size=15))
        sheet.paste(PILImage.fromarray(image), (i * width, _CAPTION_HEIGHT))
    return np.asarray(sheet)


def _print_progress(log: list[dict]) -> None:
    """Prints how far the run came: the first and last values of some metrics."""
    for name in ("diffusion_loss", "validation_bpp", "validation_psnr_db_1"):
        values = [(line["step"], line[name]) for line in log if name in line]
        if len(values) > 1:
            (first_step, first), (last_step, last) = values[0], values[-1]
            print(f"{name}: {first:.4g} at step {first_step} → {last:.4g} at step {last_step}")
