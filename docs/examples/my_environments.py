"""Names for the command line: importing this file registers the corridor with Gymnasium."""

import gymnasium

gymnasium.register("Corridor-v0", "corridor:Corridor")
