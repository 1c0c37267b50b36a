"""The sample model: handwritten digits."""
