"""A tiny compact variable-rate model, trained in minutes on the photographs that come with scikit-image.

Command:   python -m cdc_jax.main --config=configs/demo.py --workdir=runs/demo
Hardware:  2 CPU cores, 4 GB of memory
Time:      ?
Result:    ?
"""

from cdc_jax.training.config import default_config


def get_config():
    """A small version of `configs/compact.py`: a transform codec from step 0 on, so a few hundred steps are enough."""
    config = default_config()
    with config.unlocked():
        config.model.width = 32
        config.model.fold = 4
        config.model.encoder_channels = (32, 48, 64)
        config.model.unet_channels = (32, 48, 64)
        config.model.latent_channels = 128
        config.model.hyper_channels = 16
        config.model.hyper_width = 48
        config.model.transform = True
        config.model.checkerboard = True
        config.model.rate_anchors = 4
        config.model.beta_max = 0.25
        config.model.beta_min = 2.0**-8
        config.model.decode_steps = 1
        config.model.decode_gamma = 0.0
        config.data.source = "scikit-image"
        config.data.validation = "chelsea.png"
        config.data.batch_size = 4
        config.data.flip = True
        config.data.max_downscale = 2.0
        config.loss.rate_balance = 0.5
        config.loss.hyper_ramp_steps = 100
        config.loss.spread_timesteps = True
        config.loss.max_noise_fraction = 0.75
        config.loss.silent_fraction = 0.5
        config.loss.max_noise_gamma = 0.8
        config.loss.weight_floor = 1.0
        config.loss.unet_crop = 128
        config.optimizer.learning_rate = 1e-3
        config.optimizer.schedule = "cosine"
        config.optimizer.final_learning_rate = 1e-5
        config.optimizer.warmup_steps = 20
        config.optimizer.b2 = 0.99
        config.optimizer.epsilon = 1e-15  # deep in the U-Net, gradients are below 1e-8
        config.optimizer.clip_norm = 0.0  # the prior's gradient would decide on everyone's
        config.optimizer.gains_factor = 10.0
        config.optimizer.transform_factor = 0.1
        config.optimizer.hyperprior_factor = 3.0
        config.optimizer.encoder_factor = 0.2
        config.optimizer.output_factor = 0.1
        config.ema.every = 1
        config.ema.start = 20
        config.ema.max_decay = 0.99
        config.train.steps = 600
        config.train.log_every = 20
        config.train.eval_every = 200
        config.train.eval_steps = (1, 4)
        config.train.eval_qualities = (20, 50, 80)
        config.train.checkpoint_every = 200
    return config
