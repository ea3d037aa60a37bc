"""Devices, processes and threads: sharding, multi-host start-up, the compilation cache, and prefetching."""
