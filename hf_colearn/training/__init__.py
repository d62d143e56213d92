"""What the trainer is composed of: hooks, input checks, averaged weights, learning rates, streams, checkpoints."""
