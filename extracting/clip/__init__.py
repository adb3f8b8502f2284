"""Crops, CLIP image and event towers, and batches of snippets through them (Appendix F.1)."""
