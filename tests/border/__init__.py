"""What people bring, as they bring it: environments, data sets and networks; models, files, rewards and objects."""
