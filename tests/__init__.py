"""Tests: behaviour, at the real thing; one folder for each part of the house."""
