"""`python -m tdmpc_ray.cli` is `tdmpc-ray`."""

import sys

from tdmpc_ray.cli import main

sys.exit(main())
