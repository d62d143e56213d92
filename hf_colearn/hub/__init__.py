"""What is published beside the weights, the publishing, and the checks of both."""
