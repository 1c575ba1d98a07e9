"""Attribution: which coalitions to evaluate (plans) and what they are worth (game)."""
