"""Program 100000."""
