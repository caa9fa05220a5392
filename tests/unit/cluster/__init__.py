"""What machines of a cluster share."""
