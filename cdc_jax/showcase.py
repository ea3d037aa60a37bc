"""What a finished run has to show: a bundle, and the held-out photograph through a real file."""

from __future__ import annotations

from pathlib import Path

import ml_collections
import numpy as np
from jaxtyping import UInt8
from PIL import Image, ImageDraw, ImageFont

from cdc_jax.codec import load_codec
from cdc_jax.data.sources import held_out_pictures
from cdc_jax.export import export_params
from cdc_jax.files import write_atomically
from cdc_jax.images import write_image
from cdc_jax.metrics.distortion import psnr_db
from cdc_jax.run_log import RunLog
from cdc_jax.train import best_params
from cdc_jax.train_step import TrainState

_CAPTION_HEIGHT = 28


def showcase(config: ml_collections.ConfigDict, state: TrainState, workdir: str | Path) -> None:
    """Writes `bundle/`, and with a held-out picture `example.cdc`, `example.png`, `side_by_side.png`; prints figures.

    Raises:
      BundleError, ImageError: something cannot be written.
    """
    workdir = Path(workdir)
    log = RunLog(workdir).read()
    figures = {name: value for line in log for name, value in line.items() if name.startswith("held_out")}
    params = best_params(config, state)
    export_params(workdir / "bundle", config, params, int(state.step), figures=figures, overwrite=True)
    print(f"bundle: {workdir / 'bundle'}")
    if not config.data.held_out:
        return

    name, picture = held_out_pictures(config)[0]
    codec = load_codec(workdir / "bundle")
    data = codec.compress(picture)
    write_atomically(workdir / "example.cdc", data)
    bpp = 8 * len(data) / (picture.shape[0] * picture.shape[1])

    panels = [(f"original, {name}", picture)]
    for steps in config.train.eval_steps:
        decoded = codec.decompress(data, steps=steps)
        psnr = psnr_db(picture, decoded)
        panels.append((f"{steps} step{'s' if steps > 1 else ''}: {bpp:.3f} bpp, {psnr:.2f} dB", decoded))
        print(f"{name}: {len(data)} bytes, {bpp:.3f} bpp, {steps}-step decode {psnr:.2f} dB PSNR")
        if steps == config.model.decode_steps:
            write_image(workdir / "example.png", decoded)
    if config.model.decode_steps not in config.train.eval_steps:
        write_image(workdir / "example.png", codec.decompress(data))
    write_image(workdir / "side_by_side.png", side_by_side(panels))
    _print_progress(log)
    print(f"look at: {workdir / 'side_by_side.png'}")


def side_by_side(panels: list[tuple[str, UInt8[np.ndarray, "h w 3"]]]) -> UInt8[np.ndarray, "h2 w2 3"]:
    """Pictures of one size next to each other, each under its caption."""
    height, width, _ = panels[0][1].shape
    sheet = Image.new("RGB", (width * len(panels), height + _CAPTION_HEIGHT), "white")
    draw = ImageDraw.Draw(sheet)
    for i, (caption, picture) in enumerate(panels):
        draw.text((i * width + 8, 6), caption, fill="black", font=ImageFont.load_default(size=15))
        sheet.paste(Image.fromarray(picture), (i * width, _CAPTION_HEIGHT))
    return np.asarray(sheet)


def _print_progress(log: list[dict]) -> None:
    """How far the run came: first and last value of what it measured."""
    for name in ("diffusion_loss", "held_out_bpp", "held_out_psnr_db_1"):
        values = [(line["step"], line[name]) for line in log if name in line]
        if len(values) > 1:
            (first_step, first), (last_step, last) = values[0], values[-1]
            print(f"{name}: {first:.4g} at step {first_step} → {last:.4g} at step {last_step}")
