"""Where examples come from, and how they are decoded, cached, split into parts and read in batches."""
