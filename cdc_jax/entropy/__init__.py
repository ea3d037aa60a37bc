"""The entropy model, in two forms.

For training (JAX, differentiable): `factorized`, `gaussian`, `quantize`.
For coding (NumPy, exact on every machine): `exact_math`, `tables`, the `integer_*` modules, `latents`, `coding_model`,
`part_coder`, `coder`.
"""
