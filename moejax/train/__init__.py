"""Training: one step, one loop that can be killed and resumed, and experts trained together."""
