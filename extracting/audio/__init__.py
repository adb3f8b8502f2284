"""Embed the sound of videos: tracks, snippets, Wav2CLIP, and a resumable run."""
