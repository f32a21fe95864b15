"""The memo: records and states of all training ever done on one storage."""
