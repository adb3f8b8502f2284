"""Preparation of a data set from its table: lists, ground truth, and an audit of both."""
