"""Environment, device, errors, console and files: what every room uses."""
