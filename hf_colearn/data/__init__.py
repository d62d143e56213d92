"""Data through `datasets`: sample ids, collation of teacher targets."""
