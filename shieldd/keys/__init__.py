"""shieldd.keys"""
