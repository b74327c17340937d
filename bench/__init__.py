"""Measurements: each module measures one part beside its peers; `python -m bench` runs them all."""
