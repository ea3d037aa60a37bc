"""The configuration of small runs in tests: the paper's layout, trained on photographs that come with scikit-image."""

from cdc_jax.training.config import default_config


def get_config():
    """Settings for little compute.

    The diffusion loss's weight is at least 1, half of each batch is at the noisiest level, latents are scaled up at the
    start, and the U-Net sees a part of each crop. β_rate rises slowly: the model learns content first, then its rate.
    """
    config = default_config()
    with config.unlocked():
        config.model.width = 16
        config.model.decode_steps = 5
        config.init.latent_gain = 4.0
        config.data.source = "scikit-image"
        config.data.validation = "chelsea.png"
        config.data.batch_size = 2
        config.data.flip = True
        config.loss.beta = 2e-4
        config.loss.beta_start = 1e-6  # a larger one in the first hundreds of steps gives models without content
        config.loss.beta_ramp_steps = 450
        config.loss.spread_timesteps = True
        config.loss.max_noise_fraction = 0.5
        config.loss.weight_floor = 1.0
        config.loss.unet_crop = 64
        config.optimizer.learning_rate = 1e-3
        config.optimizer.schedule = "cosine"
        config.optimizer.final_learning_rate = 1e-5
        config.optimizer.warmup_steps = 30
        config.ema.every = 1
        config.ema.start = 20
        config.train.steps = 450
        config.train.log_every = 10
        config.train.eval_every = 90
        config.train.checkpoint_every = 90
    return config
