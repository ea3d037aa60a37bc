"""Trains a model, exports it, and shows what it does.

python -m cdc_jax.main --config=configs/demo.py --workdir=runs/demo

Any setting can be changed on the command line: --config.train.steps=1000

--mode=compile --topology=v5e:16x16 compiles for TPUs instead, on any machine, and prints what a chip will need.
"""

from __future__ import annotations

import runpy
import sys
from pathlib import Path

from absl import app, flags
from ml_collections import config_flags

from cdc_jax.aot import command
from cdc_jax.errors import CdcError, ConfigError
from cdc_jax.training.config import check_overrides
from cdc_jax.training.old_names import refuse_old_name_in

_CONFIG = config_flags.DEFINE_config_file("config", None, "The run's settings: a file in configs/.")
_WORKDIR = flags.DEFINE_string("workdir", None, "Where checkpoints, the bundle and all results go.")
_MODE = flags.DEFINE_enum("mode", "train", ["train", "compile"], "Train, or compile for a pod that is not there.")


def run(argv: list[str]) -> None:
    """Trains to the end, exports the bundle, and compresses the validation image where there is one."""
    if len(argv) > 1:
        raise ConfigError(f"Unexpected argument {argv[1]!r}.")
    if _MODE.value == "compile":
        return command.run(_CONFIG.value)
    if _CONFIG.value is None or _WORKDIR.value is None:
        raise ConfigError("--config=FILE and --workdir=DIR are needed.")
    from cdc_jax.runtime import compilation_cache
    from cdc_jax.runtime.multihost import join_processes, leave_together

    join_processes()
    compilation_cache.enable()
    import jax

    from cdc_jax.training.loop import train
    from cdc_jax.training.summary import showcase

    config = _CONFIG.value
    state = train(config, _WORKDIR.value)
    if jax.process_index() == 0:
        showcase(config, state, _WORKDIR.value)
    leave_together()


def main(argv: list[str] | None = None) -> int:
    """The command line; returns the exit code. A user's mistake is one line on standard error."""
    argv = list(sys.argv if argv is None else argv)
    try:
        app.define_help_flags()
        _check_overrides(argv)
        rest = flags.FLAGS(argv)
        run(rest)
    except CdcError as error:
        print(f"error: {error}", file=sys.stderr)
        return error.exit_code
    except flags.Error as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("Interrupted; the same command resumes from the last checkpoint.", file=sys.stderr)
        return 130
    return 0


def _check_overrides(argv: list[str]) -> None:
    """Unknown settings, before absl reports them as unknown flags without naming the known ones."""
    named = [arg.removeprefix("--config=") for arg in argv if arg.startswith("--config=")]
    if not named:
        return
    path, _, argument = named[-1].partition(":")
    if not Path(path).is_file():
        raise ConfigError(f"There is no configuration file {path}.")
    try:
        config = runpy.run_path(path)["get_config"](*filter(None, [argument]))
    except AttributeError as error:
        refuse_old_name_in(error)
        raise
    prefix = "--config."
    check_overrides(config, (arg.removeprefix(prefix).split("=")[0] for arg in argv if arg.startswith(prefix)))


if __name__ == "__main__":
    sys.exit(main())
