"""Say which files of the packages a wheel lacks: python .ci/check_wheel.py WHEEL, in a checkout. Exit code 1 if there are any."""

import subprocess
import sys
import zipfile
from pathlib import PurePosixPath


def main() -> None:
    """Compare what git has with what the wheel has."""
    tracked = subprocess.run(
        ["git", "ls-files", "cnnkit", "backends"], check=True, capture_output=True, text=True
    ).stdout.splitlines()
    expected = {
        str(PurePosixPath(path).relative_to("backends")) if path.startswith("backends/") else path for path in tracked
    }
    with zipfile.ZipFile(sys.argv[1]) as wheel:
        missing = sorted(expected - set(wheel.namelist()))
    if missing:
        sys.exit(f"the wheel lacks {', '.join(missing)}")
    print(f"The wheel has all {len(expected)} files of the packages.")


if __name__ == "__main__":
    main()
