"""Many devices: the mesh, what lies where on it, and how routed places work across it."""
