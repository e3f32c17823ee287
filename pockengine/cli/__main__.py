"""``python -m pockengine.cli`` is ``pockengine``."""

from __future__ import annotations

from pockengine.cli import main

if __name__ == "__main__":
    main()
