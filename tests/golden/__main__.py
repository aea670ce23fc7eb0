"""``python -m tests.golden``."""

from tests.golden.run import main

if __name__ == "__main__":
    main()
