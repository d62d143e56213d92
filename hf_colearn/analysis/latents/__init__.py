"""What a cloud of latents is like, and how far two are apart."""
