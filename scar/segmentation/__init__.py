"""Segmentation: which token ranges of a response are the players, and the tree above them."""
