"""What is registered, pure: mappings, named services, the holders they belong to, changes."""
