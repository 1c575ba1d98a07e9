"""Benchmarks: what credit costs beside the shap package, and how far estimators are from Shapley values."""
