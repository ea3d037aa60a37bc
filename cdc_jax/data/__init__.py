"""Training images, from where they lie to batches of crops.

    folders, vimeo, tfds_source ─► sources: records with random access ─┐
    sharding: the record at each position of the global order ──────────┼─► crops: position → crop ─► pipeline: batches
                                                                        ┘   (random only by seed and position)

Everything but the reading itself is a function of (seed, position), and position = step · batch_size + row. That is
why a batch is the same for any number of processes and workers, and why the state of the pipeline is one number.
"""
