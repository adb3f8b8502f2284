"""Embed crops of frames and event maps with CLIP image and event towers (Appendix F.1)."""
