"""The diffusion process: noise `schedule`, training losses (`process`), DDIM `sampler`, progressive `distillation`."""
