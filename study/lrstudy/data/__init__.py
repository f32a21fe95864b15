"""Where examples come from, how they are decoded, kept, divided into parts and read in batches."""
