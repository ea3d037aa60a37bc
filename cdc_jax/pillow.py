"""`.cdc` files in Pillow. Importing this module registers the format:

    import cdc_jax.pillow
    from PIL import Image

    Image.open("photo.jpg").save("photo.cdc", quality=40)
    image = Image.open("photo.cdc")            # reads the header: size, mode, metadata; no JAX
    image.info["steps"] = 5                    # optional: how to decode it
    image.load()                               # decodes; so does everything that needs pixels

`set_defaults` selects the model and the decoding settings, which an image's `info` may override. Errors are Pillow's:
`UnidentifiedImageError` for a file that is not a `.cdc` file or has a corrupt header, `OSError` for everything else.
"""

from __future__ import annotations

import os
import threading
from typing import IO, TYPE_CHECKING, Any

from PIL import Image, ImageFile

from cdc_jax.errors import BitstreamError, CdcError
from cdc_jax.io import cdc_file

if TYPE_CHECKING:
    from cdc_jax.codec.codec import Codec

FORMAT, MIME_TYPE = "CDC", "image/x-cdc"

_START_BYTES = 512  # holds the header of a file without metadata
_DECODING = ("steps", "seed", "gamma")  # keys of `Image.info` that are decoding settings
_SAVING = ("quality", "drop_alpha", "keep_metadata")  # arguments of `Image.save` besides `model`
_EXIF_PREFIX = b"Exif\0\0"


class _Codecs:
    """The codec of each bundle, opened when it is first needed. Safe to use from several threads."""

    def __init__(self):
        self._codecs: dict[str | None, Codec] = {}
        self._opening = threading.Lock()

    def get(self, model: str | os.PathLike[str] | Codec | None) -> Codec:
        if model is not None and not isinstance(model, str | os.PathLike):
            return model
        path = None if model is None else os.path.abspath(model)
        with self._opening:
            if path not in self._codecs:
                from cdc_jax.codec.codec import load_codec

                self._codecs[path] = load_codec(path)
            return self._codecs[path]


_codecs = _Codecs()
_defaults: dict[str, Any] = {"model": None, "steps": None, "seed": 0, "gamma": None}


def set_defaults(
    *,
    model: str | os.PathLike[str] | Codec | None = None,
    steps: int | None = None,
    seed: int = 0,
    gamma: float | None = None,
) -> None:
    """Sets the default model and decoding settings for the whole process.

    Args:
      model: the path of a bundle, or a codec; by default the shipped model.
      steps, seed, gamma: as `Codec.decompress`. `Image.info` of an open image overrides them for that image.
    """
    global _defaults
    _defaults = {"model": model, "steps": steps, "seed": seed, "gamma": gamma}


class CdcImageFile(ImageFile.ImageFile):
    """An open `.cdc` file, of mode RGB or, with an alpha channel, RGBA.

    `info` has its `fingerprint`, `quality` (in format 2), `exif`, `icc_profile` and `xmp`. Before the image is loaded,
    `steps`, `seed`, `gamma` and `model` may be set there.
    """

    format = FORMAT
    format_description = "CDC learned image codec"

    def _open(self) -> None:
        try:
            fields = self._read_header()
        except BitstreamError as error:
            raise SyntaxError(str(error)) from None
        chunks = {chunk.type: chunk.data for chunk in fields.chunks}
        self._size = fields.width, fields.height
        self._mode = "RGBA" if b"ALPH" in chunks else "RGB"
        self.info["fingerprint"] = fields.fingerprint.hex()
        if fields.version > 1:
            self.info["quality"] = fields.quality
        if b"EXIF" in chunks:
            self.info["exif"] = _EXIF_PREFIX + chunks[b"EXIF"]
        for key, kind in (("icc_profile", b"ICCP"), ("xmp", b"XMPP")):
            if kind in chunks:
                self.info[key] = chunks[kind]
        self._decode_whole(is_draft=False)

    def draft(self, mode: str | None, size: tuple[int, int] | None) -> None:
        """Prepares for an image of at most half the size, for `thumbnail`: decodes the preview, without a network.

        An entry `steps` in `info` takes precedence. Models without a transform have no preview, and decode as usual.
        """
        if self.tile and size is not None and 2 * size[0] <= self.width and 2 * size[1] <= self.height:
            self._decode_whole(is_draft=True)

    def _decode_whole(self, *, is_draft: bool) -> None:
        self.tile = [("cdc", (0, 0, *self.size), 0, (self.info, is_draft))]

    def _read_header(self) -> cdc_file.Container:
        start = self.fp.read(_START_BYTES)
        try:
            return cdc_file.unpack_header(start)
        except BitstreamError:
            return cdc_file.unpack_header(start + self.fp.read())


class CdcDecoder(ImageFile.PyDecoder):
    """Decodes a whole file when Pillow loads it. Its arguments: the image's `info`, and whether a preview is enough."""

    _pulls_fd = True

    def decode(self, buffer: bytes) -> tuple[int, int]:
        info, is_draft = self.args
        settings = {key: info.get(key, _defaults[key]) for key in _DECODING}
        try:
            codec = _codecs.get(info.get("model", _defaults["model"]))
            if is_draft and codec.config.transform and "steps" not in info:
                settings["steps"] = 0
            image = codec.decompress(self.fd.read(), return_alpha=self.mode == "RGBA", **settings)
        except CdcError as error:
            raise OSError(str(error)) from error
        self.set_as_raw(image.tobytes())
        return -1, 0


def _save(image: Image.Image, fp: IO[bytes], filename: str | bytes) -> None:
    options = image.encoderinfo
    try:
        codec = _codecs.get(options.get("model", _defaults["model"]))
        data = codec.compress(image, **{key: options[key] for key in _SAVING if key in options})
    except CdcError as error:
        raise OSError(str(error)) from error
    fp.write(data)


def _accept(prefix: bytes) -> bool:
    return prefix.startswith(cdc_file.MAGIC)


Image.register_open(FORMAT, CdcImageFile, _accept)
Image.register_decoder("cdc", CdcDecoder)
Image.register_save(FORMAT, _save)
Image.register_extension(FORMAT, ".cdc")
Image.register_mime(FORMAT, MIME_TYPE)
