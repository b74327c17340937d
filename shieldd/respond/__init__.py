"""shieldd.respond"""
