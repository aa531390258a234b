"""Learned reconstruction."""
