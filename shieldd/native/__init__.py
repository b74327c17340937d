"""The Python face of the Rust core: one module per part, over one checked ABI.

`_abi` is the only module that imports the compiled `shieldd._native`; the others turn its structs into Python values.
"""
