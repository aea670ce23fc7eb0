"""Rheostat: train policies with any mixture of on-policy and off-policy data, and measure which mixture pays."""
