"""SCAR: Shapley credit assignment for RLHF. CONTRIBUTING.md has the map of the rooms."""
