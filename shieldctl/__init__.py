"""shieldctl: the administrator's hand on shieldd (see shieldctl(1))."""
