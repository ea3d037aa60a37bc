"""`cdc models`: lists the models that need no download."""

from __future__ import annotations

import argparse
import json

from cdc_jax.cli import console
from cdc_jax.cli.arguments import Environment

_EPILOG = """\
Lists the model shipped with cdc_jax and the bundles in the hub's cache, with name, fingerprint, qualities
and size on disk. A name that begins with hf:// can be given to --model. `hf cache` manages the cache.
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the arguments of `cdc models`."""
    parser.epilog = _EPILOG
    parser.add_argument("--json", action="store_true", help="one JSON object per model and line")


def run(args: argparse.Namespace, environment: Environment) -> int:
    """Prints a line for each model; returns the exit code."""
    from cdc_jax.codec.model_catalog import models_at_hand

    entries = list(models_at_hand())
    width = max((len(entry.name) for entry in entries), default=0)
    for entry in entries:
        rate = "one rate" if entry.qualities is None else "quality {} to {}".format(*entry.qualities)
        facts = {
            "model": entry.name,
            "fingerprint": entry.fingerprint,
            "qualities": entry.qualities,
            "bytes": entry.num_bytes,
            "folder": str(entry.folder),
        }
        text = f"{entry.name:{width}}  {entry.fingerprint}  {rate:16}  {entry.num_bytes / 1e6:8.1f} MB"
        console.print_line(json.dumps(facts) if args.json else text)
    if not entries:
        console.log("No model is at hand: name one with --model, a folder or hf://OWNER/REPO.")
    return 0
