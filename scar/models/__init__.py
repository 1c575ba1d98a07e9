"""Language models: policies, reward models, and how they are loaded."""
