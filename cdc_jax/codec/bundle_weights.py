"""A bundle's weights on disk, in one of two formats.

weights/               orbax, float32: the format of exported runs
weights.safetensors    float16, half the size, memory-mapped: the format of the shipped model
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path

import jax
import numpy as np
from jaxtyping import Array, Float

from cdc_jax.codec.memory import model_bytes
from cdc_jax.codec.weight_budget import Shapes, check_orbax, check_safetensors
from cdc_jax.errors import BundleError, CdcError, OutOfMemoryError, is_out_of_memory, reason_of
from cdc_jax.models.config import ModelConfig
from cdc_jax.models.params import Params, check_same_weights, nest, shapes, unnest
from cdc_jax.runtime.free_memory import enough_memory
from cdc_jax.runtime.orbax import local_checkpointer, quiet_orbax

ORBAX_FOLDER = "weights"
SAFETENSORS_FILE = "weights.safetensors"
# Address space that the threads of Orbax and TensorStore take, measured. With less, they end the process, print
# tracebacks of their own, or deadlock.
_ORBAX_BYTES, _ORBAX_CORE_BYTES = 352 << 20, 16 << 20


def round_to_half(params: Mapping[str, Array]) -> dict[str, Float[np.ndarray, "..."]]:
    """Rounds weights to float16, and returns them as float32 by dotted name.

    Raises:
      BundleError: a weight has values outside float16's range.
    """
    with np.errstate(over="ignore"):
        rounded = {name: np.asarray(value).astype(np.float16).astype(np.float32) for name, value in params.items()}
    for name, value in rounded.items():
        if not np.isfinite(value).all():
            raise BundleError(f"The weight {name} has values that float16 cannot hold: export it as float32.")
    return rounded


def save_orbax(bundle: Path, params: Mapping[str, Array]) -> None:
    """Writes float32 weights, nested by module, into a bundle's folder."""
    path = bundle / ORBAX_FOLDER
    with quiet_orbax(), local_checkpointer() as checkpointer:
        checkpointer.save(path.absolute(), nest({name: np.asarray(value) for name, value in params.items()}))
    (path / "commit_success.txt").unlink(missing_ok=True)  # contains the temporary folder's path; nothing reads it


def save_half(bundle: Path, params: Mapping[str, Array]) -> None:
    """Writes float16 weights into a bundle's folder."""
    from safetensors.numpy import save

    # In C order: safetensors writes an array's memory as it is.
    halves = {name: np.asarray(value).astype(np.float16, order="C") for name, value in sorted(params.items())}
    (bundle / SAFETENSORS_FILE).write_bytes(save(halves))  # safetensors' own writer raises errors of other types


def load_weights(bundle: Path, config: ModelConfig) -> Params:
    """Reads a bundle's weights; returns them as float32 by dotted name.

    Raises:
      BundleError: the weights are missing or corrupt, or have another architecture.
      OutOfMemoryError: there is not enough memory for them.
    """
    half = (bundle / SAFETENSORS_FILE).is_file()
    path = bundle / (SAFETENSORS_FILE if half else ORBAX_FOLDER)
    if not path.exists():
        raise BundleError(
            f"{path} is missing, and so is {SAFETENSORS_FILE}: the bundle has no weights, copy or export it again."
        )
    check, load = (check_safetensors, _load_half) if half else (check_orbax, _load_orbax)
    expected, num_bytes = shapes(config), model_bytes(config) + (0 if half else _orbax_bytes())
    jax.local_devices()  # so that its threads allocate their memory first
    try:
        with enough_memory(f"Loading {path}", num_bytes, least_more=num_bytes):
            check(path, expected)
            return load(path, expected)
    except CdcError:
        raise
    except Exception as error:  # Orbax and TensorStore raise many types for corrupt files, with internal details
        if is_out_of_memory(error):
            raise OutOfMemoryError.during(f"read {path}") from error
        reason = f" ({reason_of(error)})" if isinstance(error, OSError) else ""
        raise BundleError(
            f"{path} cannot be read{reason}, so the bundle is incomplete or corrupt: copy or export it again."
        ) from error


def _orbax_bytes() -> int:
    return _ORBAX_BYTES + _ORBAX_CORE_BYTES * (os.cpu_count() or 1)


def _load_half(path: Path, expected: Shapes) -> Params:
    from safetensors.numpy import load_file

    return {name: value.astype(np.float32) for name, value in load_file(path).items()}


def _load_orbax(path: Path, expected: Shapes) -> Params:
    device = jax.sharding.SingleDeviceSharding(jax.local_devices()[0])
    target = {name: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=device) for name, leaf in expected.items()}
    with quiet_orbax(), local_checkpointer() as checkpointer:
        metadata = checkpointer.metadata(path.absolute()).item_metadata
        if metadata is None:  # orbax's way to say that it cannot read it
            raise BundleError(f"{path} is corrupt: its description of the weights cannot be read.")
        stored = unnest(metadata.tree)
        check_same_weights(expected, stored, str(path))
        return unnest(checkpointer.restore(path.absolute(), nest(target)))
