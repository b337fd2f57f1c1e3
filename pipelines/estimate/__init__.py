"""Estimates of an extraction's CPU time, machine time and price."""
