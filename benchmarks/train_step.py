"""The U-Net's gradient, by jax.grad of the plain program, by the package's own rules, and rematerialized; and the
trainer's whole step, with compressor, rate, optimizer and moving average.

  python benchmarks/train_step.py [--width 64] [--side 256] [--batch 1] [--repeats 3]
  python benchmarks/train_step.py --compact [--repeats 3]

The second command times the whole step of configs/compact.py, on random crops, for squared error and with LPIPS; and
`train.steps_per_call` of them in one program, as the trainer runs them.
Gradients are those of the mean squared error with respect to all weights and the context maps. All programs are timed
interleaved with a reference convolution, which sets the limit. Memory is the compiler's estimate of what a program
needs besides its arguments and results.
"""

from __future__ import annotations

import runpy
import sys
from collections.abc import Callable, Mapping
from pathlib import Path

import jax
import jax.numpy as jnp
import ml_collections
import numpy as np

ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT), str(ROOT / "benchmarks")]

from timing import LIMIT, executed_flops, limit_program, print_table, sized_parser, time_interleaved  # noqa: E402
from unet_case import unet_case  # noqa: E402

from cdc_jax.models.initialization import initial_weights  # noqa: E402
from cdc_jax.models.params import merge  # noqa: E402
from cdc_jax.models.plain_unet import plain_unet  # noqa: E402
from cdc_jax.runtime.sharding import make_mesh  # noqa: E402
from cdc_jax.training.config import default_config, model_config  # noqa: E402
from cdc_jax.training.loss import perceptual_weights  # noqa: E402
from cdc_jax.training.step import jit_train_step, jit_train_steps, new_state, train_step  # noqa: E402


def main() -> None:
    parser = sized_parser(__doc__, width=64, side=256, repeats=3)
    parser.add_argument("--batch", type=int, default=1)
    parser.add_argument("--compact", action="store_true", help="time the step of configs/compact.py instead")
    args = parser.parse_args()
    if args.compact:
        return time_compact_model(args.repeats)
    config, weights, x, time, context = unet_case(args.width, args.side, args.batch)
    wanted = jnp.sin(jnp.arange(x.size, dtype=jnp.float32)).reshape(x.shape)
    unet_weights = {name: value for name, value in weights.items() if name.startswith("unet.")}

    def gradient(unet):
        return jax.grad(lambda weights, context: jnp.mean((unet(weights, context) - wanted) ** 2), argnums=(0, 1))

    def package(rematerialize):
        def unet(some, context):
            module = merge(config, {**weights, **some}).unet
            return module.prepare(context)(x, module.embed(time), rematerialize=rematerialize)

        return gradient(unet)

    functions = {
        "jax.grad of the plain U-Net": gradient(lambda some, context: plain_unet(config, some, x, time, context)),
        "gradient of the package's U-Net": package(rematerialize=False),
        "the same, rematerialized": package(rematerialize=True),
    }
    whole = default_config()
    with whole.unlocked():
        whole.model.width, whole.data.crop, whole.data.batch_size = args.width, args.side, args.batch
    step, _, step_flops = trainer_steps(whole, {})
    compiled = {name: jax.jit(f).lower(unet_weights, context).compile() for name, f in functions.items()}
    limit, limit_flops = limit_program()
    programs = {LIMIT: limit}
    programs |= {name: lambda f=f: f(unet_weights, context) for name, f in compiled.items()}
    programs["the trainer's whole step"] = step
    flops = {LIMIT: limit_flops, "the trainer's whole step": step_flops}
    flops |= {name: executed_flops(f, unet_weights, context) for name, f in functions.items()}
    expected, *others = (jax.tree.leaves(f(unet_weights, context)) for f in compiled.values())
    print(f"d = {args.width}, {args.batch} × {args.side}×{args.side}, float32")
    for name, gradients in zip(list(compiled)[1:], others, strict=True):
        worst = max(float(jnp.abs(a - b).max() / jnp.abs(b).max()) for a, b in zip(gradients, expected, strict=True))
        print(f"{name}: every gradient within {worst:.1e} of its largest value")
    for name, program in compiled.items():
        print(f"{name}: {program.memory_analysis().temp_size_in_bytes / 2**20:,.0f} MiB")
    print_table(time_interleaved(programs, args.repeats), flops, next(iter(compiled)))


def time_compact_model(repeats: int) -> None:
    """Times the compact model's training step for squared error, and with LPIPS."""
    limit, limit_flops = limit_program()
    programs, flops = {LIMIT: limit}, {LIMIT: limit_flops}
    config = runpy.run_path(ROOT / "configs" / "compact.py")["get_config"]()
    for name, perceptual in (("step for squared error", {}), ("step with LPIPS", perceptual_weights(config))):
        several = name.replace("step", f"{config.train.steps_per_call} steps")
        programs[name], programs[f"{several} in one program"], cost = trainer_steps(config, perceptual)
        flops |= {name: cost, f"{several} in one program": config.train.steps_per_call * cost}
    model, crop, batch = config.model, config.data.crop, config.data.batch_size
    print(f"compact model, d = {model.width}, {batch} × {crop}×{crop}, U-Net on {config.loss.unet_crop}, float32")
    print_table(time_interleaved(programs, repeats), flops, "step for squared error")


def trainer_steps(
    config: ml_collections.ConfigDict, perceptual: Mapping[str, jax.Array]
) -> tuple[Callable[[], object], Callable[[], object], float]:
    """A configuration's training step on random crops, several of them in one program, and a step's FLOPs.

    `perceptual` is as in `train_step`: LPIPS-VGG's weights or {}.
    """
    mesh = make_mesh(jax.local_devices()[:1])
    initial = initial_weights(model_config(config), 0)
    shape = (config.data.batch_size, config.data.crop, config.data.crop, 3)
    images = np.random.default_rng(0).integers(0, 256, shape, np.uint8)

    def program(jitted, images):
        states = [new_state(config, initial, mesh)]

        def call():
            state, metrics = jitted(states.pop(), images, perceptual)
            states.append(state)
            return metrics

        return call

    several = [images] * config.train.steps_per_call
    flops = executed_flops(
        lambda *given: train_step(config, mesh, *given, perceptual), new_state(config, initial, mesh), images
    )
    return program(jit_train_step(config, mesh), images), program(jit_train_steps(config, mesh), several), flops


if __name__ == "__main__":
    main()
