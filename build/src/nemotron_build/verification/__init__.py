"""Whether what a tool wrote is what it was asked to write."""
