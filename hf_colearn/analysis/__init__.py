"""What a trained comparison says, one question a file. Never imported by the trainer."""
