"""SCAR: Shapley credit assignment for RLHF. See README.md for the file map."""
