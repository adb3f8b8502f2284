"""A video as whole 16-frame snippets, decoded in a process of its own (Appendix F.1)."""
