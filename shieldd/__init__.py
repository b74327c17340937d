"""shieldd: guards the directory trees that hold patient data (see shieldd(8))."""

__version__ = "0.1.0"
