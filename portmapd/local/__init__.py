"""The local channel: what processes register here lives with their connection."""
