"""Converts what Pillow decodes to upright 8-bit pixels, in sRGB or in the image's own RGB profile."""

from __future__ import annotations

import io

import numpy as np
from jaxtyping import UInt8
from PIL import Image as PILImage
from PIL import ImageCms

from cdc_jax.errors import ImageError
from cdc_jax.io.metadata import MAX_BYTES

_TRANSPOSE = {
    2: PILImage.Transpose.FLIP_LEFT_RIGHT,
    3: PILImage.Transpose.ROTATE_180,
    4: PILImage.Transpose.FLIP_TOP_BOTTOM,
    5: PILImage.Transpose.TRANSPOSE,
    6: PILImage.Transpose.ROTATE_270,
    7: PILImage.Transpose.TRANSVERSE,
    8: PILImage.Transpose.ROTATE_90,
}
_EXIF_ORIENTATION = 0x0112
_TIFF_BITS_PER_SAMPLE, _TIFF_PHOTOMETRIC = 258, 262
_PROFILE_ERRORS = (ImageCms.PyCMSError, OSError, ValueError, TypeError)


def upright(pil_image: PILImage.Image) -> PILImage.Image:
    """Applies the EXIF orientation. For TIFF, Pillow has already applied it and removed the tag."""
    try:
        orientation = pil_image.getexif().get(_EXIF_ORIENTATION, 1)
    except Exception:  # corrupt EXIF does not make the pixels unreadable
        return pil_image
    return pil_image.transpose(_TRANSPOSE[orientation]) if orientation in _TRANSPOSE else pil_image


def split_alpha(pil_image: PILImage.Image) -> UInt8[np.ndarray, "h w"] | None:
    """The alpha channel of an image, or of its transparent color or palette; None if every pixel is opaque."""
    if not pil_image.has_transparency_data:
        return None
    transparent = pil_image.info.get("transparency")
    if pil_image.mode.startswith("I"):
        alpha = np.where(np.asarray(pil_image) == transparent, 0, 255).astype(np.uint8)
    elif pil_image.mode == "La":  # premultiplied
        alpha = np.array(pil_image.convert("LA").getchannel("A"))
    elif isinstance(transparent, tuple) and max(transparent) > 255:  # 16 bits, of which Pillow keeps the upper 8
        same = np.asarray(pil_image) == np.array(transparent) >> 8
        alpha = np.where(same.all(-1), 0, 255).astype(np.uint8)
    else:
        alpha = np.array(pil_image.convert("RGBA").getchannel("A"))
    return None if (alpha == 255).all() else alpha


def to_rgb(pil_image: PILImage.Image, notes: list[str], *, keep_profile: bool = False) -> tuple[PILImage.Image, bytes]:
    """Converts any mode to RGB. Applies a color profile if there is one; otherwise RGB and gray count as sRGB.

    Args:
      pil_image: a loaded image; its `info` is emptied.
      notes: receives a sentence if the profile cannot be used.
      keep_profile: do not convert an RGB image with an RGB profile.

    Returns:
      The image, and the profile of its pixels, which is empty for sRGB.

    Raises:
      ImageError: the samples have no defined range.
    """
    if pil_image.mode in ("I", "F") or pil_image.mode.startswith("I;16"):
        pil_image = _scale_to_8_bits(pil_image)
    profile = pil_image.info.get("icc_profile")
    pil_image.info = {}  # transparency entries would affect the conversions below
    if pil_image.mode in ("RGBa", "La"):  # premultiplied
        pil_image = pil_image.convert("RGBA" if pil_image.mode == "RGBa" else "LA")
    if pil_image.mode in ("1", "LA"):
        pil_image = pil_image.convert("L")
    elif pil_image.mode not in ("L", "CMYK", "LAB"):
        pil_image = pil_image.convert("RGB")
    if profile or pil_image.mode == "LAB":
        try:
            if keep_profile and pil_image.mode in ("L", "RGB") and _is_usable_rgb(profile):
                return pil_image.convert("RGB"), profile
            return _apply_profile(pil_image, profile), b""
        except _PROFILE_ERRORS:
            notes.append("The embedded color profile is corrupt or does not fit, and was ignored.")
    return pil_image.convert("RGB"), b""


def profile_to_srgb(pil_image: PILImage.Image, profile: bytes) -> PILImage.Image:
    """Converts an RGB image from a profile to sRGB. Returns it unchanged if the profile cannot be used."""
    try:
        return _apply_profile(pil_image, profile)
    except _PROFILE_ERRORS:
        return pil_image


def _is_usable_rgb(profile: bytes) -> bool:
    """Whether a profile is for RGB and small enough for a chunk. Raises Pillow's errors for a corrupt profile."""
    if len(profile) > MAX_BYTES["icc_profile"]:
        return False
    if ImageCms.ImageCmsProfile(io.BytesIO(profile)).profile.xcolor_space.strip() != "RGB":
        return False
    _apply_profile(PILImage.new("RGB", (1, 1)), profile)
    return True


def _scale_to_8_bits(pil_image: PILImage.Image) -> PILImage.Image:
    """Scales gray of 16 or 12 bits to 8 bits (mode L), which Pillow's own conversion would clip at 255."""
    values = np.asarray(pil_image).astype(np.int64 if pil_image.mode != "F" else np.float64)
    tags = getattr(pil_image, "tag_v2", {})
    full_scale = 4095 if tuple(np.atleast_1d(tags.get(_TIFF_BITS_PER_SAMPLE, 16))) == (12,) else 65535
    if pil_image.mode == "F" or values.min() < 0 or values.max() > full_scale:
        raise ImageError("Samples of 32 bits or with a sign have no defined range; convert the image to 8 or 16 bits.")
    if pil_image.mode.startswith("I;16") and tags.get(_TIFF_PHOTOMETRIC) == 0:
        # White is zero: Pillow inverts only 8-bit images.
        values = full_scale - values
    gray = PILImage.fromarray(((values * 255 + full_scale // 2) // full_scale).astype(np.uint8))
    gray.info = pil_image.info
    return gray


def _apply_profile(pil_image: PILImage.Image, profile: bytes | None) -> PILImage.Image:
    """Converts to sRGB with the color profile: relative colorimetric with black point compensation."""
    source = ImageCms.createProfile("LAB") if pil_image.mode == "LAB" else ImageCms.ImageCmsProfile(io.BytesIO(profile))
    if pil_image.mode == "L" and source.profile.xcolor_space.strip() == "RGB":
        pil_image = pil_image.convert("RGB")
    flags = ImageCms.Flags.BLACKPOINTCOMPENSATION
    if pil_image.mode == "L":
        flags |= ImageCms.Flags.NOOPTIMIZE  # the optimized conversion of gray is off by up to 10 of 255
    transform = ImageCms.buildTransform(
        source,
        ImageCms.createProfile("sRGB"),
        pil_image.mode,
        "RGB",
        ImageCms.Intent.RELATIVE_COLORIMETRIC,
        flags,
    )
    if pil_image.mode == "L":
        ramp = PILImage.fromarray(np.arange(256, dtype=np.uint8)[None])
        table = np.asarray(ImageCms.applyTransform(ramp, transform))[0]
        return PILImage.fromarray(table[np.asarray(pil_image)])
    return ImageCms.applyTransform(pil_image, transform)
