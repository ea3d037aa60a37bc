"""Training: the `loop`, what a `step` computes, and what a run writes: `checkpoints`, metrics, the exported bundle."""
