"""Arms trained over seeds, their folders and results, and what recipes are made of."""
