"""From archives, folders and tables to batches of images and labels."""
