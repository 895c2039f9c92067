"""The tests here share `models.py`; pytest's importlib mode puts no folder on the path by itself."""

import sys
from pathlib import Path

sys.path.append(str(Path(__file__).parent))
