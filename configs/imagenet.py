"""The paper's model on ImageNet, read with TFDS from ArrayRecord files, with the paper's two phases.

Command:   python -m cdc_jax.main --config=configs/imagenet.py --workdir=runs/imagenet --config.data.path=DATA_DIR
           is the first phase, warmup. --config=configs/imagenet.py:rate,beta=0.0128,init_from=runs/imagenet is the
           second; rho=0.9, init_weights=raw, freeze_entropy=true and prediction=epsilon may follow, separated by
           commas (cdc_jax/training/phases.py).
Data:      about 155 GB, prepared once on a machine that has TensorFlow as well (training never imports it):
           pip install '.[train]' tensorflow
           tfds build imagenet2012 --file_format=array_record --data_dir=DATA_DIR --manual_dir=ARCHIVES
           ARCHIVES contains ILSVRC2012_img_train.tar and ILSVRC2012_img_val.tar, from image-net.org.
Hardware:  eight accelerators with 16 GB (a TPU v5e-8 or a GPU node), one image per accelerator and step; more with
           --config.data.batch_size; launch/README.md describes a run on several machines
Time:      not measured. A step takes 474 GFLOP per image (docs/tpu.md). Estimate for 20 TFLOP/s achieved per chip:
           0.024 s per step, 11 hours for the 1.7 million steps of both phases if the data keep up (340 images/s)
Memory:    2.2 GiB per chip with one image, of which 0.8 are weights, moving average and Adam (docs/tpu.md)
Result:    checkpoints, a bundle, TensorBoard with validation images
"""

from cdc_jax.training.config import default_config
from cdc_jax.training.phases import apply_phase


def get_config(argument: str = "warmup"):
    """The configuration of a phase. Images with a side below 256 pixels are skipped.

    Args:
      argument: the phase and its settings, see `phases.apply_phase`.
    """
    config = default_config()
    with config.unlocked():
        config.data.source = "tfds"
        config.data.name = "imagenet2012"
        config.data.validation = "validation[:8]"
        config.data.flip = True
        config.data.workers = 8
        config.data.batch_size = 8
    return apply_phase(config, argument)
