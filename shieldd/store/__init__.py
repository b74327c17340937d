"""shieldd.store"""
