"""The families of policies, one file each; nothing else has to know of a new one."""
