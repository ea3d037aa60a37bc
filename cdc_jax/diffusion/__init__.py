"""The diffusion process: noise `schedule`, training losses (`process`), DDIM `sampler`, and its `distillation`."""
