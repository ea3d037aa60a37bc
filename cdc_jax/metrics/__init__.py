"""Measures of how far a decoded picture is from the original."""
