"""The parts of the model, and the part that a weight belongs to by its dotted name.

Training uses them to decide which weights `freeze_entropy` freezes and which learning rate a weight has.
"""

from __future__ import annotations

import enum


class Part(enum.Enum):
    """The parts of the model. Every weight belongs to exactly one."""

    ENCODER = ("compressor.encoder.",)
    ANALYSIS = ("compressor.transform.analysis", "compressor.transform.deviations")
    GAINS = ("compressor.transform.log2_gain", "compressor.transform.gain_steps")
    HYPERPRIOR = (
        "compressor.hyper_encoder.",
        "compressor.hyper_decoder.",
        "compressor.checkerboard.",
        "compressor.prior.",
    )
    SYNTHESIS = ("compressor.transform.synthesis",)
    CONTEXT_DECODER = ("compressor.context_decoder.",)
    UNET = ("unet.",)


# A file's symbols depend on these parts. The other parts, which turn symbols back into an image, may change.
CODING_PARTS = frozenset({Part.ENCODER, Part.ANALYSIS, Part.GAINS, Part.HYPERPRIOR})

# The last layers of networks whose outputs start, or should stay, close to zero. Small steps of all their weights can
# add up to a large change of the output.
_OUTPUTS = (
    "compressor.encoder.out.",
    "compressor.hyper_decoder.convs.2.",
    "compressor.checkerboard.out.",
    "unet.final_conv.",
)


def part_of(name: str) -> Part:
    """The part that the weight `name` belongs to. Raises ValueError if no part has such a weight."""
    for part in Part:
        if name.startswith(part.value):
            return part
    raise ValueError(f"The weight {name} belongs to no part of the model.")


def decides_symbols(name: str) -> bool:
    """Whether a file's symbols depend on the weight `name`."""
    return part_of(name) in CODING_PARTS


def is_output(name: str) -> bool:
    """Whether the weight `name` belongs to the last layer of a network whose output is a small correction."""
    return name.startswith(_OUTPUTS)
