"""Rate points of our own codec: bundles × step counts, and which of them make one curve.

Bundles of one family (one architecture and training, several rate weights) are the points of one rate–distortion
curve; every step count is a curve of its own.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from pathlib import Path

from cdc_jax.errors import ConfigError
from cdc_jax.evaluation.rate_points import RatePoint, slug

NAME = "CDC"


def our_points(
    families: Sequence[Sequence[str]],
    steps: Sequence[int] | None,
    *,
    seed: int = 0,
    gamma: float | None = None,
    names: Sequence[str] | None = None,
    load_codec: Callable,
    max_pixels: int,
) -> list[RatePoint]:
    """Loads the bundles and makes their rate points.

    Args:
      families: for each curve, the bundles on it.
      steps: step counts; None: the paper's for each bundle's variant.
      seed, gamma: of the noise that decoding starts from; gamma None: each bundle's own.
      names: of the families; None: "CDC", distinguished by the names of their bundles.
      load_codec: as `cdc_jax.load_codec`.
      max_pixels: of images.

    Raises:
      ConfigError: a bundle is given twice, a family mixes variants, or a step count is invalid.
      BundleError: as `load_codec`.
    """
    names = names or _family_names(families)
    points: list[RatePoint] = []
    seen: dict[str, str] = {}
    for family, name in zip(families, names, strict=True):
        variants = set()
        for path in family:
            codec = load_codec(path, max_pixels=max_pixels)
            if codec.weights_sha256 in seen:
                other = seen[codec.weights_sha256]
                raise ConfigError(f"{path} has the same weights as {other}: give each bundle once.")
            seen[codec.weights_sha256] = path
            variants.add(codec.config.prediction)
            chosen_gamma = codec.config.decode_gamma if gamma is None else gamma
            for count in sorted(set(steps or paper_steps(codec.config.prediction))):
                if not 1 <= count <= codec.config.num_timesteps:
                    raise ConfigError(f"{path} cannot decode in {count} steps: 1 to {codec.config.num_timesteps}.")
                points.append(_point(codec, name, path, count, seed, float(chosen_gamma)))
        if len(variants) > 1:
            raise ConfigError(
                f"{', '.join(family)} are of different variants ({', '.join(sorted(variants))}), which make no common "
                "curve: give each variant a --model option of its own."
            )
    return points


def paper_steps(prediction: str) -> tuple[int, ...]:
    """The step counts that the original was evaluated at."""
    return (5, 20, 200) if prediction == "epsilon" else (1, 5, 17, 65)


def _point(codec, family: str, path: str, steps: int, seed: int, gamma: float) -> RatePoint:
    weights = codec.weights_sha256[:12]
    word = "step" if steps == 1 else "steps"
    return RatePoint(
        curve=f"{family}, {steps} {word}",
        setting=bundle_name(path),
        slug=f"cdc-{weights}-{steps}-steps-seed{seed}-gamma{gamma:g}",
        identity={"codec": "cdc", "weights": codec.weights_sha256, "steps": steps, "seed": seed, "gamma": gamma},
        encode=codec.compress,
        decode=lambda data: codec.decompress(data, steps=steps, seed=seed, gamma=gamma),
        file=f"cdc-{weights}",
        suffix=".cdc",
        warm_key=lambda height, width: (codec.config, steps, -(-height // 64), -(-width // 64)),
        kind="ours",
        steps=steps,
        description=f"cdc_jax, {codec.config.prediction} variant, width {codec.config.width}, {steps} {word}, "
        f"γ = {gamma:g}, seed {seed}",
    )


def bundle_name(path: str) -> str:
    """A bundle's human-readable name: its folder's, with the one above where it is only called `bundle`."""
    resolved = Path(os.path.abspath(path))
    return f"{resolved.parent.name}/{resolved.name}" if resolved.name == "bundle" else resolved.name


def _family_names(families: Sequence[Sequence[str]]) -> list[str]:
    if len(families) == 1:
        return [NAME]
    names = []
    for number, family in enumerate(families, 1):
        common = os.path.commonprefix([bundle_name(path) for path in family]).strip("-_ ./")
        name = f"{NAME} {common or number}"
        names.append(name if name not in names else f"{name} ({number})")
    return names


def curve_slug(curve: str) -> str:
    """A curve's name in file names: `CDC, 5 steps` → `cdc-5-steps`."""
    return slug(curve)
