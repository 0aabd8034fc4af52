"""moejax: experts trained apart, routed together, in JAX."""

__version__ = "0.1.0"
