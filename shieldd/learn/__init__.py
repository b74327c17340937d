"""shieldd.learn"""
