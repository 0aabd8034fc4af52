"""From weights to one delta: how the chosen experts are mixed."""
