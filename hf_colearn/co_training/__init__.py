"""Self-training and co-training: students that label the pool of unlabelled samples for each other."""
