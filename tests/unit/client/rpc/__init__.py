"""The client of program 100000."""
