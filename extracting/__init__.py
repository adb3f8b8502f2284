"""Extract embeddings from videos (Appendix F.1): frames, crops, event maps, CLIP towers, resumable runs."""
