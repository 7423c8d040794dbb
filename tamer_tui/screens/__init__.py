"""Whole screens, with their styles beside them."""
