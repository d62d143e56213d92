"""Measures of clouds of latents, and distances between them."""
