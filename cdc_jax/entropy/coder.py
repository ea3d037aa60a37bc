"""The entropy coder, which maps symbols to a stream and back. docs/format.md specifies the format of the stream.

**Order.** A single range-coder stream holds, in this order:

  1. z, channel by channel, in raster order within a channel: the entry of each symbol in the channel's table
  2. z's escaped values, in the order of their escape entries in 1
  3. y, by ascending scale index, in raster order (row, column, channel) among equal indices: the entry of each symbol
     in the table of its scale index, which the integer networks compute from z
  4. y's escaped values, in the order of their escape entries in 3

A model with a checkerboard codes y in two passes: 3 and 4 for the anchors, then 3 and 4 for the other positions.

**Entries.** Entry e < n of a table with n ordinary entries represents the symbol low + e. Entry n is the escape: the
symbol is outside [low, low + n - 1], and its value follows later. Its excess is the distance from the nearest ordinary
symbol, at least 1. L is the number of binary digits of the excess, 1 to 24. The value has L raw bits: the L - 1 digits
after the excess's leading one, followed by 1 for a symbol below the table or 0 for a symbol above it.

**Escaped values** of one part (z, y, or one pass of y): first the L of each, as entry L - 1 of the table of lengths.
Then, for L = 1, 2, … 24: if L > 12, the upper L - 12 raw bits of each value with this L, each as one of 2^(L - 12)
equally likely entries; then the lower min(L, 12) raw bits of each value with this L, in the same way. In the table of
lengths, entry L - 1 has the count floor(2^24 * 3^(L-1) / 4^L) for L < 24; the count for L = 24 is the remainder.

**Range coder.** The stream is a number V in [0, 1) in base 256, most significant byte first, with zeros after its end.
The counts of a table sum to 2^24; f is the count of entry e, and c is the sum of the counts before it. To decode:

  start         range = 2^64 - 1; point = the first 8 bytes
  each entry    scale = range >> 24; q = point // scale, corrupt if q >= 2^24; e: the entry with c <= q < c + f
                point -= scale * c; range = scale * f
                if range < 2^32: range <<= 32; point = point << 32 | the next 4 bytes

All V that decode to the same entries form an interval. After w refills, its start and end are integers of 4 w + 8
bytes. The encoder takes the largest k <= 8 for which an integer in the interval ends in k zero bytes. The stream is the
smallest such integer without its k zero bytes, so it has 4 w to 4 w + 8 bytes. After decoding, the entries are
re-encoded; if the bytes differ, the stream is corrupt. (This also detects truncation: zeros that were read beyond the
end make the encoder's stream longer.)

The range coder is constriction's (Bamler 2022, arXiv 2201.01741), with 32-bit words and a 64-bit state.
"""

import math
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Int, UInt8

from cdc_jax.entropy.coding_model import CodingModel
from cdc_jax.entropy.latents import Pass
from cdc_jax.entropy.part_coder import Entries, PartCoder, RangeDecoder, RangeEncoder
from cdc_jax.errors import BitstreamError

MAX_ABS_SYMBOL = 1 << 23

_WORD_BYTES, _STATE_BYTES = 4, 8


@dataclass(frozen=True, eq=False)
class DecodedSymbols:
    """The symbols of a stream, and what the integer networks compute from them.

    Attributes:
      z: int32, round(z - medians).
      y: int32, round((y - mean) * gain), or round(y - mean) without gains.
      mean: float32, the means of y.
      scale_index: uint8, the index of each symbol's table.
      y_hat: float32, the latents from which the image is decoded.
      level: the quality in units of 1/256, 0 in format 1.
    """

    z: Int[np.ndarray, "h w z"]
    y: Int[np.ndarray, "4*h 4*w c"]
    mean: Float[np.ndarray, "4*h 4*w c"]
    scale_index: UInt8[np.ndarray, "4*h 4*w c"]
    y_hat: Float[np.ndarray, "4*h 4*w c"]
    level: int = 0


class EntropyCoder:
    """Codes symbols with the tables of one model. Immutable, so safe to use from several threads."""

    def __init__(self, model: CodingModel):
        self.model = model
        self._z_coder = PartCoder(model.z_tables)
        self._y_coder = PartCoder(model.y_tables)

    def encode(
        self,
        z: Int[np.ndarray, "h w c"],
        y: Int[np.ndarray, "4*h 4*w c"],
        scale_index: UInt8[np.ndarray, "4*h 4*w c"],
    ) -> bytes:
        """Encodes an image's symbols to a stream.

        Args:
          z, y: symbols, int32, in [-2^23, 2^23].
          scale_index: the scale indices that `LatentModel.code` computes for these symbols, in the encoder as in the
            decoder.

        Raises:
          ValueError: an array has the wrong type or shape, or a symbol is outside the range.
        """
        return self._write(*self._to_entries(z, y, scale_index))

    def part_bits(
        self,
        z: Int[np.ndarray, "h w z"],
        y: Int[np.ndarray, "4*h 4*w c"],
        scale_index: UInt8[np.ndarray, "4*h 4*w c"],
    ) -> tuple[float, float]:
        """Ideal bits of z and of y in `encode`'s stream under the integer tables, without rounding to bytes."""
        z_part, y_parts = self._to_entries(z, y, scale_index)
        return self._z_coder.rate_bits(z_part), sum(map(self._y_coder.rate_bits, y_parts))

    def decode(self, stream: bytes, z_shape: tuple[int, int, int], level: int = 0) -> DecodedSymbols:
        """Decodes a stream to symbols, means, scale indices and ŷ.

        Args:
          stream: the result of `encode`.
          z_shape: (h, w, channels) of z. Memory and time depend only on the shape, not on the stream.
          level: the quality in units of 1/256; unused in a model of format 1.

        Raises:
          BitstreamError: no encoder writes this stream for this shape and model.
          ValueError: the shape does not fit the model.
        """
        height, width, channels = z_shape
        if channels != self.model.channels or height < 1 or width < 1:
            raise ValueError(f"z must have shape (h, w, {self.model.channels}), not {z_shape}.")
        if len(stream) < self.least_bytes(height, width):
            raise BitstreamError("The file is corrupt: it is too short for an image of its size.")
        decoder = RangeDecoder(_to_words(stream))
        z_part = _guarded(self._z_coder.read, decoder, np.full(channels, height * width))
        z = _in_range(self._z_coder.to_symbols(z_part)).reshape(channels, height, width)
        z = np.ascontiguousarray(z.transpose(1, 2, 0))
        y_parts = []

        def read(step: Pass) -> np.ndarray:
            order, sizes = _group_by_scale(_at(step.positions, step.scale_index))
            y_parts.append(_guarded(self._y_coder.read, decoder, sizes))
            ordered = np.empty(order.shape, np.int32)
            ordered[order] = _in_range(self._y_coder.to_symbols(y_parts[-1]))
            if step.positions is None:
                return ordered.reshape(step.scale_index.shape)
            y = np.zeros(step.scale_index.shape, np.int32)
            y[step.positions] = ordered.reshape(-1, y.shape[2])
            return y

        y, mean, y_hat, scale_index = self.model.latents.code(z, level, read)
        if self._write(z_part, y_parts) != stream:
            raise BitstreamError("The file is corrupt: its contents do not encode to the same bytes again.")
        return DecodedSymbols(z, y, mean, scale_index, y_hat, level)

    def least_bytes(self, height: int, width: int) -> int:
        """A lower bound on the length of a valid stream for z of this size, in either format.

        Each of z's height·width·Z and y's 16·height·width·c symbols has one entry in one table, plus its escaped value
        if any. An entry with count f takes the coder from a range r to at most r·f/2²⁴, and takes b = log₂(2²⁴/f) bits,
        at least those of the table's largest count. The first range is below 2⁶⁴ and each of w refills multiplies it by
        2³². So after all entries, whose b sum to B or more, it is below 2^(64 − B + 32w). It is also at least 2³²: the
        coder refills below that, and before a refill it is at least 2⁸ (2³² / 2²⁴ times a count of 1). Hence w > (B −
        32) / 32, and a stream has at least 4w bytes. The sum is lowered by more than its rounding errors.
        """
        z_bits = height * width * float(self._z_coder.least_bits.sum())
        y_bits = 16 * height * width * self.model.latent_channels * float(self._y_coder.least_bits.min())
        bits = (z_bits + y_bits) * (1 - 2**-30)
        return max(0, _WORD_BYTES * math.ceil((bits - 32) / 32))

    def _to_entries(self, z: np.ndarray, y: np.ndarray, scale_index: np.ndarray) -> tuple[Entries, list[Entries]]:
        channels = self.model.channels
        if z.ndim != 3 or z.shape[2] != channels or z.size == 0:
            raise ValueError(f"z must have shape (h, w, {channels}), not {z.shape}.")
        y_shape = (4 * z.shape[0], 4 * z.shape[1], self.model.latent_channels)
        if y.shape != y_shape or scale_index.shape != y_shape:
            raise ValueError(f"y and scale_index must have shape {y_shape}, not {y.shape} and {scale_index.shape}.")
        if z.dtype != np.int32 or y.dtype != np.int32 or scale_index.dtype != np.uint8:
            raise ValueError("z and y must be int32 and scale_index uint8.")
        for symbols in (z, y):
            if symbols.min() < -MAX_ABS_SYMBOL or symbols.max() > MAX_ABS_SYMBOL:
                raise ValueError(f"Symbols must be in [-{MAX_ABS_SYMBOL}, {MAX_ABS_SYMBOL}]: clip them first.")
        by_channel = np.ascontiguousarray(z.reshape(-1, channels).T).reshape(-1)
        z_part = self._z_coder.to_entries(by_channel, np.full(channels, z.shape[0] * z.shape[1]))
        y_parts = []
        for positions in self.model.latents.passes(*y_shape[:2]):
            order, sizes = _group_by_scale(_at(positions, scale_index))
            y_parts.append(self._y_coder.to_entries(_at(positions, y)[order], sizes))
        return z_part, y_parts

    def _write(self, z_part: Entries, y_parts: list[Entries]) -> bytes:
        encoder = RangeEncoder()
        self._z_coder.write(encoder, z_part)
        for part in y_parts:
            self._y_coder.write(encoder, part)
        return _shortest_stream(encoder)


def to_symbols(values: Float[np.ndarray, "..."]) -> Int[np.ndarray, "..."]:
    """Rounds half to even, and clips to ±2²³, which no trained model reaches."""
    return np.clip(np.rint(values), -MAX_ABS_SYMBOL, MAX_ABS_SYMBOL).astype(np.int32)


def rounded(y: Float[np.ndarray, "h w c"], step: Pass) -> Int[np.ndarray, "h w c"]:
    """The symbols of latents in a pass: their distance from its means in quantization steps, rounded."""
    distance = y - step.mean
    return to_symbols(distance if step.gain is None else distance * step.gain)


def _at(positions: np.ndarray | None, values: np.ndarray) -> np.ndarray:
    """The values at these positions (None: all), flattened in raster order."""
    return (values if positions is None else values[positions]).reshape(-1)


def _group_by_scale(scale_index: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Positions sorted by scale index, in raster order within a group, and the groups' sizes."""
    return np.argsort(scale_index, kind="stable"), np.bincount(scale_index, minlength=256)


def _guarded(read, decoder: RangeDecoder, sizes: np.ndarray) -> Entries:
    try:
        return read(decoder, sizes)
    except (MemoryError, BitstreamError):
        raise
    except Exception as error:  # constriction raises unspecific exceptions for invalid data
        raise BitstreamError("The file is corrupt: its data cannot come from an encoder.") from error


def _in_range(symbols: np.ndarray) -> np.ndarray:
    if symbols.min() < -MAX_ABS_SYMBOL or symbols.max() > MAX_ABS_SYMBOL:
        raise BitstreamError("The file is corrupt: it holds symbols that no encoder writes.")
    return symbols


def _to_words(stream: bytes) -> np.ndarray:
    """The stream as constriction's uint32 words, with zeros after its end: one more word than any valid stream needs.

    Decoding reads 8 + 4w bytes, and a valid stream has at least 4w.
    """
    padding = -len(stream) % _WORD_BYTES + _STATE_BYTES + _WORD_BYTES
    return np.frombuffer(stream + bytes(padding), ">u4").astype(np.uint32)


def _shortest_stream(encoder: RangeEncoder) -> bytes:
    """The shortest byte string in the encoder's final interval that is at least as long as the encoder's words."""
    words, (lower, size) = encoder.pos()  # the interval starts at `lower`, in the 8 bytes after `words` words
    sealed = encoder.get_compressed().astype(">u4").tobytes()
    length = words * _WORD_BYTES + _STATE_BYTES
    sealed = sealed.ljust(length, b"\0")[:length]
    # `sealed` is a point in the interval. The interval's start may differ from it by a carry into earlier words.
    point = int.from_bytes(sealed[-_STATE_BYTES:], "big")
    start = int.from_bytes(sealed, "big") - (point - lower) % 2**64
    for dropped in range(_STATE_BYTES, -1, -1):
        stream = -(-start >> 8 * dropped)  # the smallest multiple of 256^dropped that is >= start
        if stream << 8 * dropped < start + size:
            break
    return stream.to_bytes(length - dropped, "big")
