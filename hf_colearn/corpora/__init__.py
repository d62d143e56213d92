"""One data set a file: where its files lie, what its columns mean, how it is split."""
