"""shieldd.report"""
