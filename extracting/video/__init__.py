"""Decode videos into whole 16-frame snippets, each video in its own process (Appendix F.1)."""
