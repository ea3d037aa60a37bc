"""Measures codecs from real files: ours at several step counts, and those people use today."""
