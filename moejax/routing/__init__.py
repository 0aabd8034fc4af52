"""From activations to weights over experts: pure functions, float32 arithmetic."""
