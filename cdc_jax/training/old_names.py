"""Old names of settings, metrics and the data's state. Older runs may contain them; new configurations must not."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import Any

from cdc_jax.errors import ConfigError

OLD_NAMES = {
    "data.held_out": "data.validation",
    "data.max_broken_share": "data.max_corrupt_fraction",
    "ema.warm_up": "ema.warmup",
    "loss.content_gamma": "loss.max_noise_gamma",
    "loss.content_share": "loss.max_noise_fraction",
    "loss.silent_share": "loss.silent_fraction",
    "loss.window": "loss.unet_crop",
    "optimizer.final_rate": "optimizer.final_learning_rate",
}
_OLD_METRIC_PREFIXES = {"held_out_": "validation_", "pictures_broken": "images_corrupt", "pictures_": "images_"}
_OLD_DATA_KEYS = {"pictures": "images", "broken": "corrupt"}


def current_settings(stored: Mapping[str, Any]) -> dict[str, Any]:
    """A stored configuration, with its settings under their current names."""
    settings = {name: dict(value) if isinstance(value, Mapping) else value for name, value in stored.items()}
    for old, new in OLD_NAMES.items():
        section, _, old_key = old.partition(".")
        if old_key in settings.get(section, {}):
            settings[section][new.partition(".")[2]] = settings[section].pop(old_key)
    return settings


def current_metrics(stored: Mapping[str, Any]) -> dict[str, Any]:
    """The metrics of a checkpoint or of one line of the log, under their current names."""
    return {_current_metric(name): value for name, value in stored.items()}


def current_data_state(stored: Mapping[str, Any]) -> dict[str, Any]:
    """A stored state of the data pipeline, with its keys under their current names."""
    state = {_OLD_DATA_KEYS.get(key, key): value for key, value in stored.items()}
    if "counters" in state:
        state["counters"] = {_OLD_DATA_KEYS.get(key, key): value for key, value in state["counters"].items()}
    return state


def refuse_old_names(names: Iterable[str]) -> None:
    """Raises ConfigError, with the current name, if one of these dotted setting names is an old one."""
    for name in names:
        if name in OLD_NAMES:
            raise ConfigError(f"The setting {name} is now called {OLD_NAMES[name]}.")


def refuse_old_name_in(error: Exception) -> None:
    """Raises ConfigError if `error` is a locked ConfigDict's refusal of a setting under its old name."""
    match = re.search(r'Key "(\w+)" does not exist', str(error))
    if match:
        refuse_old_names(name for name in OLD_NAMES if name.partition(".")[2] == match[1])


def _current_metric(name: str) -> str:
    for old, new in _OLD_METRIC_PREFIXES.items():
        if name.startswith(old):
            return new + name.removeprefix(old)
    return name
