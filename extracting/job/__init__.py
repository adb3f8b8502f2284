"""Embed a folder of videos in a run that can be interrupted and resumed."""
