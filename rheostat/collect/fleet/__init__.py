"""Data of fleets: matching orders to vehicles, minute by minute."""
