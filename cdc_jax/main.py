"""Trains a model, exports it, and compresses a validation image with it.

python -m cdc_jax.main --config=configs/demo.py --workdir=runs/demo

Any setting can be changed on the command line: --config.train.steps=1000

--mode=compile --topology=v5e:16x16 instead compiles for TPUs, on any machine, and prints what each chip needs.
"""

from __future__ import annotations

import re
import sys
from pathlib import Path

import ml_collections
from absl import app, flags
from ml_collections.config_flags import config_flags

import cdc_jax
from cdc_jax.aot import command
from cdc_jax.errors import CdcError, ConfigError, is_out_of_memory
from cdc_jax.training.config_checks import check_overrides
from cdc_jax.training.old_names import refuse_old_name_in

_WORKDIR = flags.DEFINE_string("workdir", None, "Folder for checkpoints, the bundle and all results.")
_MODE = flags.DEFINE_enum("mode", "train", ["train", "compile"], "Train, or compile for TPUs that are not attached.")
_CONFIG_HELP = "The run's settings: a file in configs/."
_HELP = {"-h", "-help", "--help", "-helpshort", "--helpshort"}
_OUT_OF_MEMORY = (
    "error: There is not enough memory: make data.batch_size or data.crop smaller, or raise the limit (ulimit -v); the "
    "same command then resumes from the last checkpoint."
)


def run(argv: list[str], config: ml_collections.ConfigDict | None) -> None:
    """Trains, exports the bundle, and compresses the validation image if there is one; or compiles for TPUs.

    Raises:
      CdcError: as `train` and `showcase`.
      ConfigError: an argument is unexpected, or a flag is missing.
    """
    if len(argv) > 1:
        raise ConfigError(f"Unexpected argument {argv[1]!r}.")
    if _MODE.value == "compile":
        return command.run(config)
    if config is None or _WORKDIR.value is None:
        raise ConfigError("--config=FILE and --workdir=DIR are needed.")
    from cdc_jax.runtime import compilation_cache
    from cdc_jax.runtime.multihost import join_processes, leave_together

    join_processes()
    compilation_cache.enable()
    import jax

    state = cdc_jax.train(config, _WORKDIR.value)
    if jax.process_index() == 0:
        from cdc_jax.training.summary import showcase

        showcase(config, state, _WORKDIR.value)
    leave_together()


def main(argv: list[str] | None = None) -> int:
    """Runs the training command.

    Args:
      argv: the command line, with the program's name; by default that of the process.

    Returns:
      The exit code. Errors that a user can cause are reported in one line on standard error.
    """
    argv = list(sys.argv if argv is None else argv)
    config = _define_config_flag(argv)
    if _HELP.intersection(argv[1:]):
        print(_help())
        return 0
    try:
        app.define_help_flags()
        rest = flags.FLAGS(argv)
        run(rest, config.value)
    except CdcError as error:
        print(f"error: {error}", file=sys.stderr)
        return error.exit_code
    except flags.Error as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("Interrupted; the same command resumes from the last checkpoint.", file=sys.stderr)
        return 130
    except Exception as error:
        if not is_out_of_memory(error):
            raise
        print(_OUT_OF_MEMORY, file=sys.stderr)
        return CdcError.exit_code
    return 0


def _define_config_flag(argv: list[str]) -> flags.FlagHolder:
    """Defines `--config` for this command line. Every setting that `argv` overrides becomes a separate flag."""
    for name in [name for name in flags.FLAGS if name.startswith("config.")]:  # flags of an earlier call
        delattr(flags.FLAGS, name)
    flag = config_flags.DEFINE_config_file("config", None, _CONFIG_HELP, sys_argv=argv, allow_override=True)
    flags.FLAGS["config"].parser = _ConfigFileParser(argv)
    return flag


class _ConfigFileParser(config_flags.ConfigFileFlagParser):
    """Executes the configuration file once, and suggests names for unknown settings on the command line.

    Args:
      argv: the command line.
    """

    def __init__(self, argv: list[str]):
        super().__init__("config")
        self._argv = argv

    def parse(self, path: str) -> ml_collections.ConfigDict:
        """Reads FILE or FILE:ARGUMENT. Raises ConfigError for a missing file or an unknown setting."""
        file = path.partition(":")[0]
        if not Path(file).is_file():
            raise ConfigError(f"There is no configuration file {file}.")
        try:
            config = super().parse(path)
        except AttributeError as error:
            refuse_old_name_in(error)
            raise
        check_overrides(config, (match[1] for match in map(_OVERRIDE.match, self._argv) if match))
        return config


_OVERRIDE = re.compile(r"--?(?:no)?config\.([^=]*)")


def _help() -> str:
    """The text of `--help`."""
    compiling = [flag.name for flag in flags.FLAGS.get_flags_for_module(command.__name__)]
    return "\n".join(
        [
            __doc__.strip(),
            "",
            *_describe(["config", "workdir", "mode"]),
            "  --config.NAME=VALUE: Change one setting. All of them are documented in cdc_jax/training/config.py;",
            "    docs/training.md describes training.",
            "",
            "With --mode=compile:",
            *_describe(compiling),
        ]
    )


def _describe(names: list[str]) -> list[str]:
    chosen = [flags.FLAGS[name] for name in names]
    return [f"  --{flag.name}: {flag.help}" + (f" Default: {flag.default}." if flag.default else "") for flag in chosen]


if __name__ == "__main__":
    sys.exit(main())
