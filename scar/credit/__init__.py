"""Who gets what: credit methods, Shapley and Owen values of their game, and the shaped rewards (Eqs. 2-6)."""
