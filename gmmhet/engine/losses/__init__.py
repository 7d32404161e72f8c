"""How well images, maps and models agree."""
