"""Files: images, `.cdc` files, PyTorch checkpoints, and how they are read and written."""
