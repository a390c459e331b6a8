"""What is measured of Lineshaft itself."""
