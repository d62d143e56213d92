"""Data sets with the latents of a teacher in a column: how they are encoded, shard by shard, and what they consist of."""
