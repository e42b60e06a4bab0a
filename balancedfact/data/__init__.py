"""Data as people hold them, made into problems, and solutions made into answers."""
