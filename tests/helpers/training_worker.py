"""Runs a few training steps in a separate process, with other devices, processes or another precision.

    python -m tests.helpers.training_worker STEPS BITS [save|restore WORKDIR|distill]

prints one JSON object: losses, gradient norms, and the collectives of the compiled step. With `save`, the state is
saved before the last step; with `restore`, that step is made once more from what another worker saves. With `distill`,
the steps are those of a student of 3 steps whose teacher has other weights.
"""

import json
import re
import sys
import time
from pathlib import Path

import jax
import ml_collections
import numpy as np

from cdc_jax.runtime.multihost import join_processes


def main(steps: int, bits: int, what: str = "", workdir: str = "") -> None:
    join_processes()
    jax.config.update("jax_enable_x64", bits == 64)
    from cdc_jax.runtime.sharding import global_batch, make_mesh, replicated
    from cdc_jax.training.checkpoints import Checkpoints
    from cdc_jax.training.imitation import make_teacher
    from cdc_jax.training.step import jit_train_step, new_state
    from tests.helpers.training import image_rows, parallel_config

    distilled = {"distill.steps": 3, "model.decode_steps": 3, "distill.inputs": "teacher"}
    config = parallel_config(compact=bits == 64, **distilled if what == "distill" else {})
    mesh = make_mesh()

    state = new_state(config, _weights(config, 0, bits), mesh)
    networks = ({}, make_teacher(config, _weights(config, 1, bits))) if what == "distill" else ({},)
    share = config.data.batch_size // jax.process_count()
    first = jax.process_index() * share

    def batch(step: int) -> jax.Array:
        return global_batch(mesh, image_rows(config, step)[first : first + share], config.data.batch_size)

    compiled = jit_train_step(config, mesh).lower(state, batch(0), *networks).compile()
    losses, norms = [], []
    for step in range(steps):
        if what == "save" and step == steps - 1:
            with Checkpoints(workdir, sharding=replicated(mesh)) as checkpoints:
                checkpoints.save(state, config, {"next_step": step})
        state, terms = compiled(state, batch(step), *networks)
        losses.append(float(terms["loss"]))
        norms.append(float(terms["gradient_norm"]))
    restored_loss = None
    if what == "restore":
        with Checkpoints(_wait_for(workdir, steps - 1), sharding=replicated(mesh)) as checkpoints:
            state = checkpoints.restore(state, steps - 1)
        restored_loss = float(compiled(state, batch(steps - 1), *networks)[1]["loss"])
    if jax.process_index() == 0:
        facts = {"losses": losses, "norms": norms, "restored_loss": restored_loss, "devices": mesh.size}
        print(json.dumps(facts | {"collectives": _collectives(compiled.as_text())}))


def _weights(config: ml_collections.ConfigDict, number: int, bits: int) -> dict[str, np.ndarray]:
    from cdc_jax.models.initialization import initial_weights
    from cdc_jax.training.config import model_config

    initial = initial_weights(model_config(config), config.seed + number, latent_gain=4.0)
    return {name: np.asarray(value, f"f{bits // 8}") for name, value in initial.items()}


def _collectives(program: str) -> dict[str, int]:
    """How often each collective operation occurs in a compiled program."""
    operations = re.findall(r"= .*? ((?:all-|reduce-scatter|collective-)[a-z-]*?)(?:-start)?\(", program)
    return {name: operations.count(name) for name in set(operations)}


def _wait_for(workdir: str, step: int) -> str:
    while not Path(workdir, "checkpoints", str(step), "_CHECKPOINT_METADATA").exists():
        time.sleep(0.1)
    return workdir


if __name__ == "__main__":
    main(int(sys.argv[1]), int(sys.argv[2]), *sys.argv[3:])
