"""From an encoded recording to log-mel chunks; nothing in here imports Beam."""
