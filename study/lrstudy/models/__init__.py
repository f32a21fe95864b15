"""Models: which there are, what describes one in a lineage, and how one is built."""
