"""The sizes of our streams, compared with TFC's two strings (z and y) for the same symbols.

TFC codes at its defaults, which spend 12 bits on a probability, and at 16 bits with smaller tails, near its best. Ours
is compared with the smaller of the two.
"""

from oracle import EntropyModels

DEFAULT = {"precision": 12, "tail_mass": 2**-8}
FINEST = {"precision": 16, "tail_mass": 2**-12}


def size_limit(tfc_bytes: int) -> float:
    """At most 0.1 % and 8 bytes more than TFC."""
    return 1.001 * tfc_bytes + 8


def test_stream_sizes(arrays, gaussian, report):
    models = [EntropyModels(arrays, gaussian["scales"], **setting) for setting in (DEFAULT, FINEST)]
    too_large, unnoticed = [], []
    for k, ours in enumerate(arrays["stream_bytes"]):
        symbols = [arrays[f"{name}_{k}"] for name in ("symbol_z", "symbol_y", "scale_index")]
        theirs = [model.stream_bytes(*symbols) for model in models]
        limit = size_limit(min(theirs))
        height, width = (64 * side for side in symbols[0].shape[:2])
        against = f"{limit:.1f}  (TFC: default {theirs[0]}, finest {theirs[1]})"
        report(f"stream, {height}x{width}", f"{ours} bytes", against)
        if ours > limit:
            too_large.append((ours, limit))
        # The control has wrong scales. In a small stream the 8 bytes hide that.
        if min(theirs) > 1024 and arrays["control_bytes"][k] <= limit:
            unnoticed.append((arrays["control_bytes"][k], limit))
    assert not too_large and not unnoticed
