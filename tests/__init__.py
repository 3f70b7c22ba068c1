"""What is promised, and held by pytest: one module per promise."""
