"""A small x model, trained in minutes on the photographs that come with scikit-image.

Command:   python -m cdc_jax.main --config=configs/demo.py --workdir=runs/demo
Hardware:  2 CPU cores, 4 GB of memory
Time:      about 6 minutes (measured), compiling included
Result:    a bundle, and a photograph that was not trained on, through a real file
"""

from cdc_jax.config import default_config


def get_config():
    """Little compute: weight floor 1, latents scaled up at the start, U-Net trained on a part of each crop."""
    config = default_config()
    with config.unlocked():
        config.model.width = 16
        config.model.decode_steps = 5
        config.init.latent_gain = 4.0
        config.data.source = "scikit-image"
        config.data.held_out = "chelsea.png"
        config.data.batch_size = 2
        config.data.flip = True
        config.loss.beta = 1.5e-4
        config.loss.beta_start = 1e-5
        config.loss.beta_ramp_steps = 100
        config.loss.spread_timesteps = True
        config.loss.weight_floor = 1.0
        config.loss.window = 64
        config.optimizer.learning_rate = 8e-4
        config.optimizer.schedule = "cosine"
        config.optimizer.final_rate = 1e-5
        config.optimizer.warmup_steps = 30
        config.ema.every = 1
        config.ema.start = 20
        config.train.steps = 500
        config.train.log_every = 10
        config.train.eval_every = 100
        config.train.checkpoint_every = 100
    return config
