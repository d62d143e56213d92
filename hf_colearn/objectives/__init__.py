"""Auxiliary losses: one objective a file, its arithmetic in functions of tensors beside it."""
