"""The entropy model, in two halves.

Training side (JAX, differentiable): `factorized`, `gaussian`, `quantize`.
Coding side (NumPy, integers only): `exact_math`, `tables`, `integer_hyper_decoder`, `coding_model`, `part_coder`,
`coder`.
"""
