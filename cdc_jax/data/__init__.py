"""Training data: from image files to batches of crops.

    folders, vimeo, tfds_source ─► sources: records with random access ─┐
    sharding: the record at each position of the global order ──────────┼─► crops: position → crop ─► pipeline: batches
                                                                        ┘   (a function of seed and position)

Which record is read and how it is cropped depends only on (seed, position), where position = step · batch_size + row.
Therefore batches are the same for any number of processes and workers, and the state of the pipeline is one number.
"""
