"""What is registered."""
