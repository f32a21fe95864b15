"""Models: which names are known, how a lineage describes a model, and how it is built."""
