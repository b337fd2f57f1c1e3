"""What an extraction will cost: CPU time, machine time, money."""
