"""Which checkpoints are kept, and that none is ever half deleted."""

import pytest

from cdc_jax.models.initialization import initial_weights
from cdc_jax.training import checkpoints as module
from cdc_jax.training.checkpoints import OBJECTIVE, Checkpoints
from cdc_jax.training.config import model_config
from cdc_jax.training.step import new_state
from tests.helpers.training import tiny_config


def save(workdir, objectives: list[float]) -> None:
    """Saves a step for each value of the objective, and keeps the latest one."""
    config = tiny_config(**{"model.width": 4})
    state = new_state(config, initial_weights(model_config(config), 0))
    with Checkpoints(workdir, keep=1) as checkpoints:
        for step, objective in enumerate(objectives):
            checkpoints.save(state._replace(step=state.step * 0 + step), config, {}, {OBJECTIVE: objective})
            checkpoints.wait()


def names(folder) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_the_latest_and_the_best_are_kept(tmp_path):
    save(tmp_path, [2.0, 1.0, 3.0, 4.0])
    with Checkpoints(tmp_path) as checkpoints:
        assert checkpoints.steps() == [1, 3] and checkpoints.best_step() == 1
    assert names(tmp_path / "checkpoints") == [".deleted", "1", "3"]
    assert names(tmp_path / "checkpoints" / ".deleted") == []


def test_an_interrupted_deletion_leaves_no_half_checkpoint(tmp_path, monkeypatch):
    """The process ends where it would delete: the checkpoint has lost its name by then, and the next one deletes it."""

    class Killed(BaseException):
        pass

    def killed(path, **_):
        next(path.glob("config/*")).unlink()
        raise Killed

    monkeypatch.setattr(module.shutil, "rmtree", killed)
    with pytest.raises(Killed):
        save(tmp_path, [3.0, 2.0, 1.0])
    folder = tmp_path / "checkpoints"
    assert names(folder) == [".deleted", "1"] and names(folder / ".deleted") == ["0"]
    monkeypatch.undo()
    with Checkpoints(tmp_path) as checkpoints:
        assert checkpoints.steps() == [1] and checkpoints.restore_json(1, "config")
    assert names(folder / ".deleted") == []
