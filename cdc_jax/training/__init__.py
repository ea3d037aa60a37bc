"""Training: the `loop`, the `step`, and what a run writes: `checkpoints`, metrics, and the exported bundle."""
