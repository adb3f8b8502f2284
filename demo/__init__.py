"""The synthetic data set: what makes it a test of the whole path, from videos to a table."""
