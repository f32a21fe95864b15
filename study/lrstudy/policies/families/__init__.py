"""The families of policies, one file each. A new file is found by itself; nothing else has to be changed."""
