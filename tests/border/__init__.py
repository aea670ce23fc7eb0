"""What people bring to a language run, as they bring it: models, files, rewards and objects."""
