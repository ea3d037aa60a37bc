"""Training images, from where they lie to batches of crops.

    folders, vimeo, tfds_source ─► sources: records with random access ─┐
    sharding: which record comes at which place of the global order ────┼─► crops: place → crop ─► pipeline: batches
                                                                        ┘   (seed and place decide all that is random)

Everything but the reading itself is a function of (seed, place), and place = step · batch_size + row. That is why a
batch is the same for any number of processes and workers, and why the state of the pipeline is one number.
"""
