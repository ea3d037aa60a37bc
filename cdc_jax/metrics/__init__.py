"""Measures of how far a decoded image is from the original."""
