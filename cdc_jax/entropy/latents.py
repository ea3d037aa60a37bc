"""y's symbols given z's: means, scales, and the order of passes, shared by the encoder and the decoder.

A model of format 1 has one pass: means and scale indices of all positions follow from z. A model of format 2 works in
normalized latents with F fractional bits:

  scale     log2 σ = 4 * output * 2^-F; its index is the number of thresholds that are at most
            (output << 18 - F) + log2 g, both with 16 fractional bits
  latent    ŷ = saturate(mean + (symbol * (1/g) + 2^15 >> 16)), 1/g with F + 16 fractional bits

With the checkerboard there are two passes: the anchors, then the other positions, whose means and scales are corrected
by what the anchors are.
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
_MAX_SHIFT_IN_32_BITS = 7  # of a 24-bit output, to which log2 g of at most 20 bits is then added
_MAX_TABLE_SIZE = 1 << 22

Symbols = Int[np.ndarray, "h w c"]


class Pass(NamedTuple):
    """What is known when a pass's symbols are to be coded.

    Attributes:
      mean: float32, of every position.
      gain: float32 [c], symbols per unit of y; None: 1.
      scale_index: of every position.
      positions: the ones that the pass codes; None: all.
    """

    mean: Float[np.ndarray, "h w c"]
    gain: Float[np.ndarray, " c"] | None
    scale_index: UInt8[np.ndarray, "h w c"]
    positions: Bool[np.ndarray, "h w"] | None


class Latents(NamedTuple):
    """y's symbols, what the image is decoded from, and the scale indices that the symbols were coded with."""

    symbols: Symbols
    mean: Float[np.ndarray, "h w c"]
    y_hat: Float[np.ndarray, "h w c"]
    scale_index: UInt8[np.ndarray, "h w c"]


@dataclass(frozen=True, eq=False)
class LatentModel:
    """From z's symbols to everything that coding y takes. Immutable; may be used from several threads.

    Attributes:
      hyper_decoder: the integer network.
      gains: of a model of format 2; None in one of format 1.
      checkerboard: None in a model of one pass.
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
        """The positions that each pass codes, of y of this size; None: all."""
        if self.checkerboard is None:
            return [None]
        mask = anchor_mask(height, width)
        return [mask, ~mask]

    def code(self, z: Int[np.ndarray, "h w z"], level: int, symbols_of: Callable[[Pass], Symbols]) -> Latents:
        """Runs the passes.

        Args:
          z: its symbols, int32.
          level: the quality in units of 1/256; not used in a model of format 1.
          symbols_of: gives a pass's symbols, int32 [4h, 4w, c]; only those at the pass's positions are used.
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
        """The number of thresholds that are at most log2 of the scale, from a table where that is not too large."""
        thresholds = self.hyper_decoder.thresholds
        first, last = int(thresholds[0]), int(thresholds[-1])
        if last - first >= _MAX_TABLE_SIZE or first == np.iinfo(np.int32).min:
            return np.searchsorted(thresholds, log2_scale, side="right").astype(np.uint8)
        inside = np.clip(log2_scale, first - 1, last)
        inside -= first - 1
        return self._index_table[inside]

    @cached_property
    def _index_table(self) -> UInt8[np.ndarray, " n"]:
        """Scale indices from just below the first threshold up to the last one."""
        thresholds = self.hyper_decoder.thresholds.astype(np.int64)
        span = np.arange(thresholds[0] - 1, thresholds[-1] + 1)
        return np.searchsorted(thresholds, span, side="right").astype(np.uint8)

    def _latents(self, output: np.ndarray, symbols: np.ndarray, gains: LevelGains) -> Int[np.ndarray, "h w c"]:
        """ŷ in fixed point."""
        latents = np.ascontiguousarray(output[..., : self.hyper_decoder.latent_channels])
        nonzero = np.flatnonzero(symbols)  # a symbol 0 is the mean itself
        inverse = gains.inverse[nonzero % len(gains.inverse)]
        offset = symbols.reshape(-1)[nonzero] * inverse + (1 << (INVERSE_BITS - 1)) >> INVERSE_BITS
        flat = latents.reshape(-1)
        flat[nonzero] = np.clip(flat[nonzero] + offset, MIN_ACTIVATION, MAX_ACTIVATION)
        return latents


def _replaced(values: np.ndarray, positions: Bool[np.ndarray, "h w"], new: np.ndarray) -> np.ndarray:
    """A copy of the values, with the new ones at these positions."""
    result = values.copy()
    result[positions] = new[positions]
    return result
