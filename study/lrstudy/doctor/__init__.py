"""What a machine, and every node of a cluster, must be able to do before a study is worth starting there."""
