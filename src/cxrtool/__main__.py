"""``python -m cxrtool`` is ``cxr``."""

from cxrtool.cli.app import main

if __name__ == "__main__":
    main()
