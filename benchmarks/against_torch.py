"""A step of the paper's U-Net and its gradient, in this package and in PyTorch.

  python benchmarks/against_torch.py [--width 64] [--side 256] [--batch 1] [--images 8] [--repeats 5] [--threads N]

PyTorch's network is assembled from its own layers (`torch_unet.py`) and has the same weights and inputs, in PyTorch's
two memory layouts. Before timing, outputs and all gradients are compared. All programs run interleaved in one process;
the table shows minimum and median, and ratios to PyTorch's default layout. A step of the package is timed with the
precomputation for all steps and without it; PyTorch's contains everything. Gradients are those of the mean squared
error with respect to all weights and the context maps. The last rows add up the weights' gradients of
--images images, one after another: in this package in one program, as `train.accumulate` and `train.steps_per_call` do.

With --threads 1, the process also stays on one core, and CPU seconds are then hardly affected by other programs.
"""

from __future__ import annotations

import copy
import importlib.util
import os
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT), str(ROOT / "benchmarks")]


def main() -> None:
    if importlib.util.find_spec("torch") is None:
        sys.exit("PyTorch is missing: pip install '.[torch]'")
    from timing import sized_parser

    parser = sized_parser(__doc__, width=64, side=256, repeats=5)
    parser.add_argument("--batch", type=int, default=1)
    parser.add_argument("--images", type=int, default=8)
    parser.add_argument("--threads", type=int, default=len(os.sched_getaffinity(0)))
    args = parser.parse_args()
    os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[: args.threads])
    compare(args)


def compare(args) -> None:
    """Builds both sides, compares their results, and prints the table."""
    import torch
    from timing import sample_interleaved

    torch.set_num_threads(args.threads)
    ours, theirs, check = programs(args)
    check()
    samples = sample_interleaved({**theirs, **ours}, args.repeats)
    print(f"d = {args.width}, {args.batch} × {args.side}×{args.side}, float32, {args.threads} threads")
    print(f"PyTorch {torch.__version__}; milliseconds of the wall clock and of all cores: minimum, median; ratios")
    for kind in ("step", "gradient", "sum of gradients"):
        print_rows({name: values for name, values in samples.items() if name.startswith(kind)})


def print_rows(samples) -> None:
    """One row per program, with its ratios to the first."""
    from statistics import median

    first = None
    for name, values in samples.items():
        row = [1e3 * reduce(column) for column in zip(*values, strict=True) for reduce in (min, median)]
        first = first or row
        columns = "".join(f"{value:9.0f} {value / base:5.2f}" for value, base in zip(row, first, strict=True))
        print(f"{name:44}{columns}")


def programs(args):
    """(this package's programs, PyTorch's, a function that compares their results)."""
    import jax
    import jax.numpy as jnp
    import numpy as np
    import torch
    from torch_unet import our_layout, torch_name, torch_unet
    from unet_case import unet_case

    from cdc_jax.models.params import merge

    config, weights, x, time, context = unet_case(args.width, args.side, args.batch)
    wanted = jnp.sin(jnp.arange(x.size, dtype=jnp.float32)).reshape(x.shape)
    unet_weights = {name: value for name, value in weights.items() if name.startswith("unet.")}

    def unet(some, context):
        return merge(config, {**weights, **some}).unet(x, time, context)

    def loss(some, context):
        return jnp.mean((unet(some, context) - wanted) ** 2)

    prepared = jax.jit(lambda some, context: merge(config, {**weights, **some}).unet.prepare(context))
    features = merge(config, weights).unet.embed(time)
    step, ready = jax.jit(lambda unet, x: unet(x, features)), prepared(unet_weights, context)
    whole, gradient = jax.jit(unet), jax.jit(jax.grad(loss, argnums=(0, 1)))
    several = jax.tree.map(lambda value: jnp.stack([value] * args.images), context)

    @jax.jit
    def sum_of_gradients(some, contexts):
        def add(total, context):
            return jax.tree.map(jnp.add, total, jax.grad(loss)(some, context)), None

        return jax.lax.scan(add, jax.tree.map(jnp.zeros_like, some), contexts)[0]

    ours = {
        "step, this package, precomputation included": lambda: whole(unet_weights, context),
        "step, this package": lambda: step(ready, x),
        "gradient, this package": lambda: gradient(unet_weights, context),
        "sum of gradients, this package": lambda: sum_of_gradients(unet_weights, several),
    }

    def to_torch(maps):
        return torch.from_numpy(np.array(maps)).permute(0, 3, 1, 2).contiguous()

    network = torch_unet(config, unet_weights)
    torch_time, inputs = torch.from_numpy(np.array(time)), [to_torch(v) for v in (x, wanted, *context.maps)]
    theirs = {}
    for name, memory_format in (("", torch.contiguous_format), (", channels last", torch.channels_last)):
        theirs |= torch_programs(name, copy.deepcopy(network), torch_time, inputs, memory_format, args.images)

    def check():
        output = theirs["step, PyTorch"]().permute(0, 2, 3, 1).numpy()
        names = [name for name, _ in network.named_parameters()]
        sums = dict(zip(names, theirs["sum of gradients, PyTorch"](), strict=True))
        found = theirs["gradient, PyTorch"]()
        found, maps = dict(zip(names, found, strict=False)), found[len(names) :]
        by_weight, by_context = ours["gradient, this package"]()
        pairs = [(our_layout(n, found[torch_name(n)].numpy(), config), v) for n, v in by_weight.items()]
        summed = ours["sum of gradients, this package"]()
        pairs += [(our_layout(n, sums[torch_name(n)].numpy(), config), v) for n, v in summed.items()]
        pairs += [(a.permute(0, 2, 3, 1).numpy(), b) for a, b in zip(maps, by_context.maps, strict=True)]
        print(f"outputs agree within {difference(ours['step, this package'](), output):.1e} of the largest value")
        print(f"every gradient agrees within {max(difference(b, a) for a, b in pairs):.1e} of its largest value")

    return ours, theirs, check


def difference(found, expected) -> float:
    """The largest difference, relative to the largest expected value."""
    return float(abs(found - expected).max() / abs(expected).max())


def torch_programs(name: str, network, time, inputs, memory_format, images: int) -> dict:
    """PyTorch's step, gradient and sum of gradients with all maps in one memory layout."""
    import torch

    network = network.to(memory_format=memory_format)
    x, wanted, *context = (v.contiguous(memory_format=memory_format) for v in inputs)

    def step():
        with torch.no_grad():
            return network(x, time, context)

    def gradient():
        maps = [v.detach().requires_grad_() for v in context]
        loss = ((network(x, time, maps) - wanted) ** 2).mean()
        return torch.autograd.grad(loss, [*network.parameters(), *maps])

    def sum_of_gradients():
        network.zero_grad()
        for _ in range(images):
            ((network(x, time, context) - wanted) ** 2).mean().backward()
        return [parameter.grad for parameter in network.parameters()]

    return {
        f"step, PyTorch{name}": step,
        f"gradient, PyTorch{name}": gradient,
        f"sum of gradients, PyTorch{name}": sum_of_gradients,
    }


if __name__ == "__main__":
    main()
