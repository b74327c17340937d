"""shieldd.watch"""
