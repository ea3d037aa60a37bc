"""Ahead-of-time compilation for TPUs that are not attached: reports what a program needs per chip."""
