"""``python -m rheostat`` and ``python -m rheostat.cli`` are the ``rheostat`` command."""

from rheostat.cli import main

if __name__ == "__main__":
    main()
