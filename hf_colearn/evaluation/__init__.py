"""What a trained model is measured by: metrics, metrics of single modalities, the variants of ImageNet."""
