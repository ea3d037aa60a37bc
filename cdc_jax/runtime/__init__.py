"""Devices and processes: sharding, joining the processes of a run, the compilation cache, and prefetching."""
