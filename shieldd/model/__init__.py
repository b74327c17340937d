"""What flows through shieldd: frozen values, no behaviour beyond their own consistency, no imports of ours."""
