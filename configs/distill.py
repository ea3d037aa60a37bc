"""Progressive distillation (Salimans & Ho, ICLR 2022): a model learns to decode in fewer steps than its teacher.

Command:   python -m cdc_jax.main --config=configs/distill.py:teacher=BUNDLE,steps=5 --workdir=runs/distilled \
               --config.data.path=PHOTOGRAPHS
           teacher is a bundle or a run; steps are the student's: 1, 2, 3, 5, 9, 17 or 33. teacher_steps=17, gamma=0.8
           and rho=0.1 may follow, separated by commas; without them, the teacher's defaults hold and the loss has no
           LPIPS. docs/distillation.md describes the recipe
Hardware:  as for training the teacher; a step takes 1.3 times the computation (docs/distillation.md)
Time:      not measured. train.steps is the number of steps of each stage; from 65 steps to 5 there are four stages
Result:    a bundle that opens all files of the teacher; the runs of earlier stages in stages/
"""

import runpy
from pathlib import Path

from cdc_jax.training.config import default_config
from cdc_jax.training.distillation import apply_distillation

# What a compact model is distilled with as it was trained with, in configs/compact.py.
_AS_COMPACT = {
    "data": ("max_downscale", "cache_mib"),
    "loss": ("rate_balance", "unet_crop"),
    "optimizer": ("b2", "epsilon", "clip_norm", "output_factor", "max_fan_in"),
}


def get_config(argument: str = ""):
    """The configuration of a distillation. The model is the teacher's.

    Args:
      argument: the teacher and the number of steps, see `distillation.apply_distillation`.
    """
    config = apply_distillation(default_config(), argument)
    with config.unlocked():
        config.data.flip = True
        config.loss.weight_floor = 1.0
        config.loss.spread_timesteps = True
        config.optimizer.schedule = "cosine"
        config.optimizer.final_learning_rate = 0.0
        config.ema.every = 1
        config.train.steps = 20_000
        config.train.eval_every = 2_000
        config.train.eval_steps = (config.distill.steps,)
        config.train.checkpoint_every = 1_000
        if config.model.fold > 1:
            compact = runpy.run_path(str(Path(__file__).with_name("compact.py")))["get_config"]()
            for section, names in _AS_COMPACT.items():
                for name in names:
                    config[section][name] = compact[section][name]
            config.loss.lpips_images = 3
            config.optimizer.learning_rate = 5e-4
    return config
