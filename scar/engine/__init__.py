"""Where models compute and learn: one process, or several that share each batch."""
