"""Sentence vectors of texts: what routers that compare requests with experts' data work on."""
