"""What is published beside the weights: model cards and teacher-bank cards."""
