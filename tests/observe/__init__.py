"""What the core says of files and actors, held to plain-Python twins, real tools and hostile files."""
