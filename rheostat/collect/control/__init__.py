"""WHO ACTS in control: stepping environments, behaviour policies, data sets, model rollouts."""
