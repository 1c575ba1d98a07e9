"""Judges that compare two responses, what they are asked, and their answers kept on disk. Knows no Hydra."""
