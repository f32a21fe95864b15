"""A trial, the whole idea without Ray: policy + memo + train + record."""
