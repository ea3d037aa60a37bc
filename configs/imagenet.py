"""The paper's model on ImageNet, read through TFDS from ArrayRecord files.

Command:   python -m cdc_jax.main --config=configs/imagenet.py --workdir=runs/imagenet --config.data.path=DATA_DIR
Data:      prepared once, where TensorFlow is installed as well (training never imports it), about 155 GB:
           pip install '.[train]' tensorflow
           tfds build imagenet2012 --file_format=array_record --data_dir=DATA_DIR --manual_dir=ARCHIVES
           ARCHIVES holds ILSVRC2012_img_train.tar and ILSVRC2012_img_val.tar, from image-net.org.
"""

from cdc_jax.config import default_config


def get_config():
    """Pictures with a side below 256 pixels are skipped; --config.data.small_images=upscale keeps them."""
    config = default_config()
    with config.unlocked():
        config.data.source = "tfds"
        config.data.name = "imagenet2012"
        config.data.held_out = "validation[:8]"
        config.data.flip = True
        config.data.workers = 8
    return config
