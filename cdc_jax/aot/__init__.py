"""Ahead-of-time compilation for devices that are not attached: reports what a program needs per chip."""
