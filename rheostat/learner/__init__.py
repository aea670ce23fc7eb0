"""What binds the parts of a method to a run: the learner, models, updates, stages, the dial."""
