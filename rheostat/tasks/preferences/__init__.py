"""Small worlds of preferences, in which data, rewards and the distance to the reference are known exactly."""
