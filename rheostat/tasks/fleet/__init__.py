"""Cities whose vehicles share one policy: roads, demand, and the world in which orders are matched to vehicles every minute."""
