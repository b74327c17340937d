"""shieldd.detect"""
