"""shieldd.api"""
