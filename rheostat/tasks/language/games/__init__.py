"""Text games: tasks of several turns that need no download, with scripted partners, random and expert players."""
