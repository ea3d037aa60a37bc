"""The configuration of small runs in tests: the paper's layout, trained on photographs that come with scikit-image."""

import runpy
from pathlib import Path

_CONFIGS = Path(__file__).resolve().parents[2] / "configs"


def get_config():
    """`configs/image_folder.py` with settings for little compute.

    The diffusion loss's weight is at least 1, half of each batch is at the noisiest level, latents are scaled up at the
    start, and the U-Net sees a part of each crop. β_rate rises slowly: the model learns content first, then its rate.
    """
    config = runpy.run_path(str(_CONFIGS / "image_folder.py"))["get_config"]()
    with config.unlocked():
        config.model.width = 16
        config.model.decode_steps = 5
        config.data.source = "scikit-image"
        config.data.validation = "chelsea.png"
        config.data.batch_size = 2
        config.loss.beta = 2e-4
        config.loss.beta_start = 1e-6  # a larger one in the first hundreds of steps gives models without content
        config.loss.beta_ramp_steps = 450
        config.loss.spread_timesteps = True
        config.loss.max_noise_fraction = 0.5
        config.loss.unet_crop = 64
        config.optimizer.learning_rate = 1e-3
        config.optimizer.final_learning_rate = 1e-5
        config.optimizer.warmup_steps = 30
        config.ema.every = 1
        config.ema.start = 20
        config.train.steps = 450
        config.train.log_every = 10
        config.train.eval_every = 90
        config.train.checkpoint_every = 90
    return config
