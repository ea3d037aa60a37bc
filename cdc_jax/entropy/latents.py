"""The passes in which y is coded, with means and scales, for both encoder and decoder.

A model of format 1 has one pass: z determines the means and scale indices of all positions. A model of format 2 has
normalized latents with F fractional bits:

  scale     log2 σ = 4 * output * 2^-F; its index is the number of thresholds that are less than or equal to
            (output << 18 - F) + log2 g, with 16 fractional bits
  latent    ŷ = saturate(mean + (symbol * (1/g) + 2^15 >> 16)), 1/g with F + 16 fractional bits

With a checkerboard, there are two passes: the anchors, and then the other positions, whose means and scales are
corrected given the anchors.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float, Int, UInt8

from cdc_jax.entropy.integer_checkerboard import IntegerCheckerboard, anchor_mask
from cdc_jax.entropy.integer_gains import INVERSE_BITS, LOG2_BITS, IntegerGains, LevelGains
from cdc_jax.entropy.integer_hyper_decoder import IntegerHyperDecoder
from cdc_jax.entropy.integer_layer import MAX_ACTIVATION, MIN_ACTIVATION
from cdc_jax.errors import BundleError

LOG2_SCALE_SHIFT = 2  # log2 σ is 4 times the network's output
_MAX_SHIFT_IN_32_BITS = 7  # a 24-bit output, shifted by at most this, plus log2 g of at most 20 bits fits int32
_MAX_TABLE_SIZE = 1 << 22  # entries of the lookup table of scale indices

Symbols = Int[np.ndarray, "h w c"]


class Pass(NamedTuple):
    """What the encoder and decoder know before they code a pass.

    Attributes:
      mean: float32, the means of y at all positions.
      gain: float32, quantization steps per unit of y for each channel; None: 1.
      scale_index: the scale indices at all positions.
      positions: the positions that the pass codes; None: all.
    """

    mean: Float[np.ndarray, "h w c"]
    gain: Float[np.ndarray, " c"] | None
    scale_index: UInt8[np.ndarray, "h w c"]
    positions: Bool[np.ndarray, "h w"] | None


class Latents(NamedTuple):
    """The result of all passes.

    Attributes:
      symbols: y's symbols, int32.
      mean: float32, the means of y.
      y_hat: float32, the latents from which the image is decoded.
      scale_index: the scale indices with which the symbols are coded.
    """

    symbols: Symbols
    mean: Float[np.ndarray, "h w c"]
    y_hat: Float[np.ndarray, "h w c"]
    scale_index: UInt8[np.ndarray, "h w c"]


@dataclass(frozen=True, eq=False)
class LatentModel:
    """Computes, from z's symbols, everything needed to code y. Immutable, so safe to use from several threads.

    Attributes:
      hyper_decoder: the integer hyper decoder.
      gains: the gains of a model of format 2; None in format 1.
      checkerboard: the context model of a model with two passes; None with one pass.

    Raises:
      BundleError: the parts do not fit each other.
    """

    hyper_decoder: IntegerHyperDecoder
    gains: IntegerGains | None = None
    checkerboard: IntegerCheckerboard | None = None

    def __post_init__(self):
        net, board = self.hyper_decoder, self.checkerboard
        channels, hidden = net.latent_channels, net.layers[2].kernel.shape[2]
        if self.gains is None:
            if board is not None:
                raise BundleError("A checkerboard needs gains.")
            if not net.channels == hidden == channels:
                raise BundleError("Without gains, z, y and the hyper decoder must have equally many channels.")
            return
        if self.gains.anchors.shape[1] != channels:
            raise BundleError(f"The gains are for {self.gains.anchors.shape[1]} channels, y has {channels}.")
        if board is not None:
            if (board.channels, board.anchor_kernel.shape[2]) != (channels, hidden):
                raise BundleError("The checkerboard does not fit the hyper decoder.")
            if {layer.output_bits for layer in net.layers[1:]} != {board.latent_bits}:
                raise BundleError("The checkerboard's fractional bits are not the hyper decoder's.")

    def passes(self, height: int, width: int) -> list[Bool[np.ndarray, "h w"] | None]:
        """The positions that each pass codes, for y of this height and width; None: all."""
        if self.checkerboard is None:
            return [None]
        mask = anchor_mask(height, width)
        return [mask, ~mask]

    def code(self, z: Int[np.ndarray, "h w z"], level: int, symbols_of: Callable[[Pass], Symbols]) -> Latents:
        """Runs all passes.

        Args:
          z: symbols, int32.
          level: the quality in units of 1/256; unused in a model of format 1.
          symbols_of: returns y's symbols for a pass, int32 [4h, 4w, c]: by quantization in the encoder, from the stream
            in the decoder. Only symbols at the pass's positions are used.
        """
        if self.gains is None:
            mean, scale_index = self.hyper_decoder.decode(z)
            symbols = symbols_of(Pass(mean, None, scale_index, None))
            return Latents(symbols, mean, symbols.astype(np.float32) + mean, scale_index)
        bits = self.hyper_decoder.layers[2].output_bits
        gains = self.gains.at(level, bits)
        features, output = self.hyper_decoder.decode_with_features(z)
        positions, *others = self.passes(*output.shape[:2])
        step = self._pass(output, gains, positions)
        symbols = symbols_of(step)
        y_hat = self._latents(output, symbols, gains)
        mean, scale_index = step.mean, step.scale_index
        for positions in others:
            output = self.checkerboard.correct(output, features, y_hat, symbols, level)
            step = self._pass(output, gains, positions)
            symbols = _replaced(symbols, positions, symbols_of(step))
            mean = _replaced(mean, positions, step.mean)
            scale_index = _replaced(scale_index, positions, step.scale_index)
            y_hat = _replaced(y_hat, positions, self._latents(output, symbols, gains))
        return Latents(symbols, mean, y_hat.astype(np.float32) * np.float32(2.0**-bits), scale_index)

    def _pass(self, output: np.ndarray, gains: LevelGains, positions: np.ndarray | None) -> Pass:
        channels, bits = self.hyper_decoder.latent_channels, self.hyper_decoder.layers[2].output_bits
        shift = LOG2_BITS + LOG2_SCALE_SHIFT - bits
        kind = np.int32 if shift <= _MAX_SHIFT_IN_32_BITS else np.int64
        log2_scale = (output[..., channels:].astype(kind) << shift) + gains.log2.astype(kind)
        mean = output[..., :channels].astype(np.float32) * np.float32(2.0**-bits)  # exact: 24 bits
        return Pass(mean, gains.gains(), self.scale_index(log2_scale), positions)

    def scale_index(self, log2_scale: Int[np.ndarray, "h w c"]) -> UInt8[np.ndarray, "h w c"]:
        """The number of thresholds ≤ log2 of the scale. Uses a lookup table unless it would be too large."""
        thresholds = self.hyper_decoder.thresholds
        first, last = int(thresholds[0]), int(thresholds[-1])
        if last - first >= _MAX_TABLE_SIZE or first == np.iinfo(np.int32).min:
            return np.searchsorted(thresholds, log2_scale, side="right").astype(np.uint8)
        inside = np.clip(log2_scale, first - 1, last)
        inside -= first - 1
        return self._index_table[inside]

    @cached_property
    def _index_table(self) -> UInt8[np.ndarray, " n"]:
        """Scale indices by log2 of the scale, from just below the first threshold to the last threshold."""
        thresholds = self.hyper_decoder.thresholds.astype(np.int64)
        span = np.arange(thresholds[0] - 1, thresholds[-1] + 1)
        return np.searchsorted(thresholds, span, side="right").astype(np.uint8)

    def _latents(self, output: np.ndarray, symbols: np.ndarray, gains: LevelGains) -> Int[np.ndarray, "h w c"]:
        """ŷ in fixed point, from the hyper decoder's output and the symbols."""
        latents = np.ascontiguousarray(output[..., : self.hyper_decoder.latent_channels])
        nonzero = np.flatnonzero(symbols)  # for a symbol 0, ŷ is the mean
        inverse = gains.inverse[nonzero % len(gains.inverse)]
        offset = symbols.reshape(-1)[nonzero] * inverse + (1 << (INVERSE_BITS - 1)) >> INVERSE_BITS
        flat = latents.reshape(-1)
        flat[nonzero] = np.clip(flat[nonzero] + offset, MIN_ACTIVATION, MAX_ACTIVATION)
        return latents


def _replaced(values: np.ndarray, positions: Bool[np.ndarray, "h w"], new: np.ndarray) -> np.ndarray:
    """A copy of `values`, with the values of `new` at these positions."""
    result = values.copy()
    result[positions] = new[positions]
    return result
