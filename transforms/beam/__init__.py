"""What several steps share that needs Beam."""
