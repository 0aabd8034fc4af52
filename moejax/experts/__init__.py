"""Experts trained apart: LoRA factors, the stacked bank, files and pools."""
