"""The two phases of the paper's recipe, as arguments of a configuration file.

    --config=configs/vimeo90k.py:warmup
    --config=configs/vimeo90k.py:rate,beta=0.0128,rho=0.9,init_from=runs/warmup

The warmup trains with a rate weight close to 0 (β_rate = 1e-6, ρ = 0), which results in a model with a very high rate.
Without it, the x model decodes to gray images. The second phase starts from the warmup's moving average, with a fresh
optimizer, schedule and step counter, and trains for the target rate. `init_weights=raw` starts from the raw weights
instead. `freeze_entropy=true` trains only the decoder, so that files written with the initial model stay readable.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import ml_collections

from cdc_jax.errors import ConfigError

WARMUP_BETA = 1e-6
WARMUP_STEPS = 700_000
RATE_STEPS = 1_000_000
_VALUES = {
    "beta": float,
    "rho": float,
    "prediction": str,
    "init_from": str,
    "init_weights": str,
    "freeze_entropy": {"true": True, "false": False}.__getitem__,
}


def apply_phase(config: ml_collections.ConfigDict, argument: str) -> ml_collections.ConfigDict:
    """Changes a configuration in place to that of a phase, and returns it.

    Args:
      config: the paper's settings.
      argument: the phase, "warmup" or "rate", followed by settings, all separated by commas: beta=…, rho=…,
        init_from=…, init_weights=…, freeze_entropy=…, and prediction=epsilon for the epsilon model.

    Raises:
      ConfigError: the phase, a setting or the prediction is unknown, or the phase "rate" lacks beta or init_from.
    """
    phase, *settings = argument.split(",")
    values = dict(parse_setting(setting, _VALUES) for setting in settings)
    with config.unlocked():
        prediction = values.pop("prediction", "x")
        if prediction not in ("x", "epsilon"):
            raise ConfigError(f"The recipe has prediction=x and prediction=epsilon, not {prediction!r}.")
        if prediction == "epsilon":
            _use_epsilon(config)
        if phase not in _PHASES:
            raise ConfigError(f"The recipe has the phases {' and '.join(_PHASES)}, not {phase!r}.")
        _PHASES[phase](config, values)
        for name, value in values.items():
            (config if name in config else config.loss)[name] = value
        config.loss.beta_start = config.loss.beta
    return config


def _use_warmup(config: ml_collections.ConfigDict, values: dict) -> None:
    config.loss.beta, config.loss.rho = WARMUP_BETA, 0.0
    config.train.steps = WARMUP_STEPS


def _use_rate(config: ml_collections.ConfigDict, values: dict) -> None:
    missing = [name for name in ("beta", "init_from") if name not in values]
    if missing:
        raise ConfigError(f"The phase rate needs {missing[0]}=…, as in rate,beta=0.0128,init_from=runs/warmup.")
    config.train.steps = RATE_STEPS
    config.ema.warmup = False


_PHASES = {"warmup": _use_warmup, "rate": _use_rate}


def parse_setting(setting: str, kinds: Mapping[str, Callable[[str], Any]]) -> tuple[str, Any]:
    """A setting in a configuration file's argument, such as "beta=0.01".

    Args:
      setting: name and value.
      kinds: for each known name, the function that reads its value and raises KeyError or ValueError.

    Returns:
      (name, value).

    Raises:
      ConfigError: the name is unknown, or the value invalid.
    """
    name, _, value = setting.partition("=")
    try:
        return name, kinds[name](value)
    except (KeyError, ValueError) as error:
        known = ", ".join(f"{known}=…" for known in kinds)
        raise ConfigError(f"Cannot read {setting!r} in the configuration's argument; it takes {known}.") from error


def _use_epsilon(config: ml_collections.ConfigDict) -> None:
    """The settings of the released epsilon models: another learning rate, no clipping, no moving average."""
    config.model.prediction = "epsilon"
    config.model.decode_steps = 200
    config.optimizer.learning_rate, config.optimizer.final_learning_rate = 4e-5, 2e-5
    config.optimizer.clip_norm = 0.0
    config.ema.enabled = False
