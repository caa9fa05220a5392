"""Programs that nobody here wrote, on the running plugin."""
