"""The teacher's side: a frozen encoder, a bank of its latents, and the pairing of samples with rows of the bank."""
