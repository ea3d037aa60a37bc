"""The results of a finished run: a bundle, and a validation image compressed with it, JPEG and the shipped model."""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import ml_collections
import numpy as np
from etils import epath
from jaxtyping import UInt8
from PIL import Image as PILImage
from PIL import ImageDraw, ImageFont

from cdc_jax.codec.codec import Codec, load_codec
from cdc_jax.codec.model_selection import Target, choose
from cdc_jax.data.sources import validation_images
from cdc_jax.errors import CdcError
from cdc_jax.evaluation.baselines import BASELINES, MAX_QUALITY, decode, encode
from cdc_jax.evaluation.size_search import largest_within
from cdc_jax.io.files import copy_tree, is_remote, write_atomically
from cdc_jax.io.images import Image, write_image
from cdc_jax.io.pixels import to_unit_range
from cdc_jax.metrics.distortion import psnr_db
from cdc_jax.metrics.lpips import load_lpips, lpips
from cdc_jax.training.export import export_params
from cdc_jax.training.initialization import read_coding
from cdc_jax.training.metrics_writer import RunLog
from cdc_jax.training.state import TrainState, best_params

_CAPTION_HEIGHT = 28


def showcase(config: ml_collections.ConfigDict, state: TrainState, workdir: epath.PathLike) -> None:
    """Writes the bundle and, if there is a validation image, an example of its use. Prints metrics.

    The outputs are `bundle/`, `example.cdc`, `example.png` and `side_by_side.png` in the run's folder.

    Args:
      config: the settings of the finished run.
      state: the run's last state.
      workdir: the run's folder, local or in an object store.

    Raises:
      BundleError, ImageError, CdcError: an output cannot be written.
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
    """Writes the outputs into the local `folder`; printed lines name `shown` instead."""
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
    write_image(folder / "example.png", codec.decompress(data))
    panels = compared(name, image, codec, data)
    print(f"{name}: {len(data)} bytes, {8 * len(data) / (image.shape[0] * image.shape[1]):.3f} bpp")
    for panel in panels[1:]:
        print(f"  {panel.caption}")
    write_image(folder / "side_by_side.png", side_by_side([(panel.caption, panel.image) for panel in panels]))
    print(f"look at: {shown}/side_by_side.png")


class _Panel(NamedTuple):
    caption: str
    image: Image


def compared(name: str, image: Image, codec: Codec, data: bytes) -> list[_Panel]:
    """An image, decoded from files of at most the same size: JPEG's, the run's, the shipped model's if any.

    Args:
      name: the image's name.
      image: the original.
      codec: the run's codec.
      data: the codec's file of the image.

    Returns:
      The original and the decoded images, each with a caption that states rate, PSNR and, if its weights are installed,
      LPIPS-Alex.
    """
    height, width, _ = image.shape
    lpips_of = _lpips_alex()

    def panel(label: str, size_bytes: int, decoded: Image, remark: str = "") -> _Panel:
        bpp, psnr = 8 * size_bytes / (height * width), psnr_db(image, decoded)
        lpips = "" if lpips_of is None else f", LPIPS {lpips_of(image, decoded):.3f}"
        return _Panel(f"{label}: {bpp:.3f} bpp{remark}, {psnr:.2f} dB{lpips}", decoded)

    jpeg = BASELINES["jpeg"]
    quality = largest_within(lambda q: len(encode(jpeg, image, q)), 0, MAX_QUALITY, len(data))
    jpeg_data = encode(jpeg, image, quality or 0)
    panels = [
        _Panel(f"original, {name}", image),
        panel("JPEG", len(jpeg_data), decode(jpeg, jpeg_data), " (its smallest)" if quality is None else ""),
        panel("this model", len(data), codec.decompress(data)),
    ]
    try:
        shipped = load_codec()
        choice = choose(["shipped"], lambda _: shipped, image, Target(file_bytes=len(data)))
    except CdcError:  # no model is shipped, or even its smallest file is larger
        return panels
    return [*panels, panel("the model of the package", len(choice.data), shipped.decompress(choice.data))]


def _lpips_alex() -> Callable[[Image, Image], float] | None:
    """A function that returns LPIPS-Alex of two uint8 images; None if its weights are not installed."""
    try:
        weights = load_lpips("alex")
    except CdcError:
        return None
    return lambda image, decoded: float(lpips(weights, to_unit_range(image[None]), to_unit_range(decoded[None]))[0])


def side_by_side(panels: list[tuple[str, Image]]) -> UInt8[np.ndarray, "h2 w2 3"]:
    """One sheet with images of equal size under their captions: four in two rows, other numbers in one row."""
    height, width, _ = panels[0][1].shape
    columns = 2 if len(panels) == 4 else len(panels)
    rows = -(-len(panels) // columns)
    sheet = PILImage.new("RGB", (width * columns, (height + _CAPTION_HEIGHT) * rows), "white")
    draw = ImageDraw.Draw(sheet)
    for i, (caption, image) in enumerate(panels):
        x, y = width * (i % columns), (height + _CAPTION_HEIGHT) * (i // columns)
        draw.text((x + 8, y + 6), caption, fill="black", font=ImageFont.load_default(size=15))
        sheet.paste(PILImage.fromarray(image), (x, y + _CAPTION_HEIGHT))
    return np.asarray(sheet)


def _print_progress(log: list[dict]) -> None:
    """Prints the first and last logged values of some metrics."""
    for name in ("diffusion_loss", "validation_objective"):
        values = [(line["step"], line[name]) for line in log if name in line]
        if len(values) > 1:
            (first_step, first), (last_step, last) = values[0], values[-1]
            print(f"{name}: {first:.4g} at step {first_step} → {last:.4g} at step {last_step}")
