"""Students: any AutoModel backbone with a latent head and a classifier."""
