"""Answers for your own videos and streams, which have no ground truth."""
