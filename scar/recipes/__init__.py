"""Recipes: how the models of a local scale are trained, task by task."""
