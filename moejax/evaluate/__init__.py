"""What a method may read, what its answers are worth, and the table that compares methods."""
