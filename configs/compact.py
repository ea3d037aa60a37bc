"""The compact model: a variable-rate model that decodes in one step and trains on two CPU cores.

Command:   python -m cdc_jax.main --config=configs/compact.py:FOLDER[,FOLDER…] --workdir=runs/compact
           (folders of photographs; --config.data.validation=FOLDER measures the images of another folder)
Hardware:  2 CPU cores, 4 GB of memory (3.0 GB measured in the first 500 steps)
Time:      0.32 s a step for squared error (benchmarks/train_step.py), 0.7 s with LPIPS (the trainer's log), on two idle
           cores; 60,000 steps take 12 hours (extrapolated)
Result:    docs/shipped-model.md: it was trained for 25,691 steps in eight parts, the later ones with these settings
"""

from cdc_jax.training.config import default_config


def get_config(paths: str = ""):
    """A transform codec at step 0, which the networks improve: first for squared error, later for LPIPS as well.

    Args:
      paths: folders of training images, separated by commas; `--config.data.path` can name them instead.
    """
    config = default_config()
    with config.unlocked():
        config.model.width = 64
        config.model.fold = 4
        config.model.encoder_channels = (96, 128, 192)
        config.model.unet_channels = (64, 128, 192)
        config.model.latent_channels = 192
        config.model.hyper_channels = 32
        config.model.hyper_width = 96
        config.model.transform = True
        config.model.checkerboard = True
        config.model.rate_anchors = 8
        config.model.beta_max = 4.0
        config.model.beta_min = 2.0**-5
        config.model.decode_steps = 1
        config.model.decode_gamma = 0.0
        config.data.path = paths
        config.data.batch_size = 4
        config.data.flip = True
        config.data.max_downscale = 2.0
        config.data.cache_mib = 1024
        config.loss.rho = 0.4
        config.loss.rho_start_step = 1_500
        config.loss.lpips_images = 4
        config.loss.rate_balance = 0.5
        config.loss.hyper_ramp_steps = 300
        config.loss.spread_timesteps = True
        config.loss.max_noise_fraction = 0.75
        config.loss.silent_fraction = 0.75
        config.loss.max_noise_gamma = 0.8
        config.loss.weight_floor = 1.0
        config.loss.unet_crop = 128
        config.optimizer.learning_rate = 5e-4
        config.optimizer.final_learning_rate = 1e-5
        config.optimizer.schedule = "trapezoid"
        config.optimizer.warmup_steps = 200
        config.optimizer.cooldown_steps = 10_000
        config.optimizer.b2 = 0.99
        config.optimizer.epsilon = 1e-15  # deep in the U-Net, gradients are below 1e-8
        config.optimizer.clip_norm = 0.0  # the prior's gradient would dominate the global norm
        config.optimizer.gains_factor = 3.0
        config.optimizer.transform_factor = 0.05
        config.optimizer.hyperprior_factor = 1.5
        config.optimizer.encoder_factor = 0.3
        config.optimizer.output_factor = 0.1
        config.optimizer.max_fan_in = 288
        config.ema.every = 1
        config.ema.max_decay = 0.999
        config.train.steps = 60_000
        config.train.steps_per_call = 5
        config.train.log_every = 50
        config.train.eval_every = 500
        config.train.eval_steps = (1,)
        config.train.eval_qualities = (20, 45, 70)
        config.train.checkpoint_every = 500
        config.train.keep_checkpoints = 2
    return config
