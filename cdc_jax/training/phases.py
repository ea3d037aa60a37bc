"""The paper's recipe in its two phases, as arguments of a configuration file.

    --config=configs/vimeo90k.py:warmup
    --config=configs/vimeo90k.py:rate,beta=0.0128,rho=0.9,init_from=runs/warmup

The warmup trains with a rate weight close to 0 (β_rate = 1e-6, ρ = 0) and gives a model of a very high rate; without
it, the x model gives grey images. The second phase starts from its moving average, with a fresh optimizer, schedule
and step counter, and asks for the wanted rate. `init_weights=raw` takes the raw weights instead; `freeze_entropy=true`
trains the decoder alone, so that files of the model it starts from stay readable.
"""

from __future__ import annotations

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
    """Changes a configuration to a phase of the recipe.

    Args:
      config: of the paper's settings; changed in place.
      argument: "warmup" or "rate", and settings after it: beta, rho, init_from, init_weights, freeze_entropy;
        prediction=epsilon for that variant.

    Raises:
      ConfigError: another phase, an unknown setting or prediction, or a second phase without beta or init_from.
    """
    phase, *settings = argument.split(",")
    values = dict(_parse(setting) for setting in settings)
    with config.unlocked():
        prediction = values.pop("prediction", "x")
        if prediction not in ("x", "epsilon"):
            raise ConfigError(f"The recipe has prediction=x and prediction=epsilon, not {prediction!r}.")
        if prediction == "epsilon":
            _use_epsilon(config)
        if phase == "warmup":
            config.loss.beta, config.loss.rho = WARMUP_BETA, 0.0
            config.train.steps = WARMUP_STEPS
        elif phase == "rate":
            missing = [name for name in ("beta", "init_from") if name not in values]
            if missing:
                raise ConfigError(f"The phase rate needs {missing[0]}=…, as in rate,beta=0.0128,init_from=runs/warmup.")
            config.train.steps = RATE_STEPS
            config.ema.warmup = False
        else:
            raise ConfigError(f"The recipe has the phases warmup and rate, not {phase!r}.")
        for name, value in values.items():
            (config if name in config else config.loss)[name] = value
        config.loss.beta_start = config.loss.beta
    return config


def _parse(setting: str) -> tuple[str, float | str | bool]:
    name, _, value = setting.partition("=")
    try:
        return name, _VALUES[name](value)
    except (KeyError, ValueError) as error:
        known = ", ".join(f"{known}=…" for known in _VALUES)
        raise ConfigError(f"Cannot read {setting!r} in the configuration's argument; it takes {known}.") from error


def _use_epsilon(config: ml_collections.ConfigDict) -> None:
    """What the released epsilon models were trained with: another rate, no clipping, no moving average."""
    config.model.prediction = "epsilon"
    config.model.decode_steps = 200
    config.optimizer.learning_rate, config.optimizer.final_learning_rate = 4e-5, 2e-5
    config.optimizer.clip_norm = 0.0
    config.ema.enabled = False
