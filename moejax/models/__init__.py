"""Base models: an encoder and a decoder in Linen, and what reads, writes and runs them."""
