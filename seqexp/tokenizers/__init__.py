"""Text to token numbers and back, behind one interface."""
