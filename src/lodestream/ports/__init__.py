"""What must somebody do, and how is that somebody found by name?"""
