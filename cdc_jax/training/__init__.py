"""Training: the `loop`, the `step`, and a run's outputs: `checkpoints`, metrics, and the exported bundle."""
