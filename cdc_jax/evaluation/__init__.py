"""Evaluation of codecs on real files: our codec at several step counts, and the common image formats."""
