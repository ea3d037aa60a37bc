"""Training on a TFDS data set in ArrayRecord files, the way ImageNet is read."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from tests.helpers.processes import fast_environment
from tests.helpers.training import CONFIG, main_command

_RUN = """
import sys
from cdc_jax.main import main
code = main(sys.argv)
assert "tensorflow" not in sys.modules, "TensorFlow was imported"
sys.exit(code)
"""


@pytest.mark.slow
def test_training_on_array_records_without_tensorflow(tmp_path):
    tfds = pytest.importorskip("tensorflow_datasets", reason="needs tensorflow-datasets: pip install '.[train]'")
    from tests.data.array_record import write_data_set

    folder = Path(pytest.importorskip("skimage").__file__).parent / "data"
    images = [{"image": str(folder / name)} for name in ("astronaut.png", "coffee.png", "rocket.jpg")]
    validation = [{"image": str(folder / "chelsea.png")}]
    features = {"image": tfds.features.Image(shape=(None, None, 3))}
    write_data_set(tmp_path / "data", "photographs", features, {"train": images, "validation": validation})

    settings = {
        "data.source": "tfds",
        "data.name": "photographs",
        "data.path": tmp_path / "data",
        "data.validation": "validation[:1]",
        "data.crop": 64,
        "model.width": 4,
        "train.steps": 4,
        "train.log_every": 2,
    }
    command = main_command(tmp_path / "run", **settings)
    assert command[1:3] == ["-m", "cdc_jax.main"] and f"--config={CONFIG}" in command
    finished = subprocess.run(
        [sys.executable, "-c", _RUN, *command[3:]], env=fast_environment(), capture_output=True, text=True, timeout=600
    )
    assert finished.returncode == 0, finished.stderr[-3000:]
    assert (tmp_path / "run" / "bundle" / "coding.npz").exists()
    assert "photographs, split train (TFDS)" in (tmp_path / "run" / "bundle" / "model_card.md").read_text()
