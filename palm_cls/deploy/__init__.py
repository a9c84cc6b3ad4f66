"""Trained networks in use: prediction, export, the page."""
