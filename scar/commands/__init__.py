"""From a config to objects to one command; the only room that knows Hydra."""
