"""Coalitions scored fast: masked copies of responses behind shared prompts, through trie, fused or generic backends."""
