"""Training pictures: where they come from (`sources`) and how they become batches (`pipeline`)."""
