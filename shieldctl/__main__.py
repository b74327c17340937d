"""Composition root."""


def main() -> None:
    raise SystemExit("shieldd: being built")
