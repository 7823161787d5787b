"""SQL that several endpoints share, or that is long. Nothing here commits."""
