"""Tasks of text: generated, one's own, public; and the batches made of them."""
