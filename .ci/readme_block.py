"""Print the N-th `sh` block of the README, so that what CI runs is what a newcomer pastes."""

import re
import sys
from pathlib import Path

blocks = re.findall(r"```sh\n(.*?)```", Path("README.md").read_text(encoding="utf-8"), re.DOTALL)
sys.stdout.write(blocks[int(sys.argv[1]) - 1])
