"""Videos → embeddings (Appendix F.1): frames, crops, event maps, CLIP towers, and the run over a folder."""
