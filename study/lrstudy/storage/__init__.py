"""Where the memo and the studies lie: a folder that all nodes share, or a prefix of a bucket."""
