"""When does each batch run, and what if it fails?"""
