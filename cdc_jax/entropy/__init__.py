"""The entropy model, in two halves.

Training side (JAX, differentiable): `factorized`, `gaussian`, `quantize`.
Coding side (NumPy, integers only): `exact_math`, `tables`, `integer_net`, `coding_model`, `coder`.
"""
