"""Compiling for a pod of accelerators without having one: what a program needs per chip, before anything is rented."""
