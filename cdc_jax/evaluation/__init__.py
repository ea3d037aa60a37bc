"""Evaluation of codecs on real files: ours at several step counts, and the common image formats."""
