"""What lies in a study's folder: journal, ledger, driver lock, predictions, and the columns of its tables."""
