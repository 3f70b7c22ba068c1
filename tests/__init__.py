"""The tests: one module for each promise of the service."""
