"""Devices and processes: how arrays lie over them, how processes meet, and what is kept or computed ahead."""
