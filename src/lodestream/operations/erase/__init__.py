"""Erasing a subject: who it is, what holds it, taking it out, deleting files, and the proof that nothing is left."""
