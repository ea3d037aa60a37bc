"""The paper's model on the paper's data: Vimeo-90k septuplets, one random frame of each.

Command:   python -m cdc_jax.main --config=configs/vimeo90k.py --workdir=runs/vimeo --config.data.path=FOLDER
Data:      FOLDER is what vimeo_septuplet.zip of the data set's authors unpacks to: sep_trainlist.txt, sequences/
"""

from cdc_jax.config import default_config


def get_config():
    """Measured on the middle frames of the test list's first eight septuplets."""
    config = default_config()
    with config.unlocked():
        config.data.source = "vimeo90k"
        config.data.held_out = "sep_testlist.txt"
        config.data.workers = 4
    return config
