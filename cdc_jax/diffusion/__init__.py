"""The diffusion process: its noise `schedule`, training losses (`process`), and DDIM `sampler`."""
