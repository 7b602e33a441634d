"""Where the repository is, and the folder of real images that `SALIENCY_DATA` names."""

import os
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
SUPPORT = Path(__file__).resolve().parent
# Tests on real images skip where no folder, or an empty one, is named.
DATA = Path(os.environ.get("SALIENCY_DATA", ROOT / "data"))
