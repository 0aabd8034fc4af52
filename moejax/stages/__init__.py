"""The stages of train.py and eval.py in their order, each skipped where it is done: scene, make, compare, report."""
