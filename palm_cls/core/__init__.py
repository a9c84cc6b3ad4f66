"""Environment, device, errors, console and files: used by every other room."""
