"""The paper's model on a folder of photographs, with settings that train well from scratch.

Command:   python -m cdc_jax.main --config=configs/image_folder.py:/path/to/photographs --workdir=runs/mine
Hardware:  one accelerator with 16 GB; on a CPU, add --config.model.width=16 --config.data.batch_size=2
Time:      not measured at full width. A step takes 1.9 TFLOP for a batch of 4 (docs/tpu.md). Estimate for 20 TFLOP/s
           achieved: 0.1 s per step, 5 to 6 hours for 200,000 steps. configs/demo.py trains in minutes
Memory:    5.1 GiB on a v5e chip with 4 images, of which 0.8 are weights, moving average and Adam (docs/tpu.md)
Result:    a bundle. --config.data.validation=NAME.png measures that image and never trains on it
"""

from cdc_jax.training.config import default_config


def get_config(path: str = ""):
    """The configuration for the images below the folder `path`, which is searched recursively."""
    config = default_config()
    with config.unlocked():
        config.data.source = "folder"
        config.data.path = path
        config.data.flip = True
        config.init.latent_gain = 4.0
        config.loss.beta = 5e-4
        config.loss.weight_floor = 1.0
        config.optimizer.learning_rate = 1e-4
        config.optimizer.schedule = "cosine"
        config.optimizer.final_learning_rate = 1e-6
        config.optimizer.warmup_steps = 1000
        config.train.steps = 200_000
    return config
