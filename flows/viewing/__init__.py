"""What users look at of their data. Begin with `files.py`. It imports none of the other rooms."""
